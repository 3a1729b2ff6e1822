"""Empirical energy corrections of the Materials Project (MP2020) and of OMat24, by pymatgen."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from ase import Atoms

from mlip import paths
from mlip.data.frame import Frame
from mlip.errors import suggest

KINDS = ("MP2020", "OMat24")
_WITHOUT = "none"


def correction(atoms: Atoms, kind: str) -> float:
    """Return the correction that a scheme adds to the DFT energy of a structure, eV.

    The scheme of Wang et al., Sci. Rep. 11, 15496 (2021): per anion (oxides, peroxides and
    superoxides told apart by the distances of the oxygen atoms) and per transition metal that has a
    Hubbard U in an oxide or fluoride. ``OMat24`` has the same terms, fitted to the calculations
    of Barroso-Luque et al., arXiv 2410.12771. The calculation is taken to be one of the scheme:
    PBE with the U of ``MPRelaxSet`` wherever that has one.

    Args:
        atoms: A periodic structure.
        kind: ``MP2020`` or ``OMat24``.

    Raises:
        ModuleNotFoundError: Without pymatgen.
        ValueError: If there is no such scheme, or it does not cover the structure.
    """
    scheme = _scheme(kind)
    from pymatgen.entries.compatibility import CompatibilityError
    from pymatgen.entries.computed_entries import ComputedStructureEntry
    from pymatgen.io.ase import AseAtomsAdaptor

    structure: Any = AseAtomsAdaptor.get_structure(atoms)  # type: ignore[arg-type]
    hubbards = _hubbards(structure.composition, scheme.u_settings)
    parameters = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards}
    entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oxidation states that cannot be guessed
            adjustments = scheme.get_adjustments(entry)
    except CompatibilityError as error:
        raise ValueError(f"{atoms.symbols}: {kind} has no correction ({error})") from error
    return float(sum(adjustment.value for adjustment in adjustments))


def remove(frame: Frame, kind: str) -> Frame:
    """Return a frame without the corrections that its energy includes.

    Raises:
        ValueError: If the frame says that its energy includes others, or none.
    """
    return _changed(frame, kind, had=kind, has=_WITHOUT, sign=-1)


def apply(frame: Frame, kind: str) -> Frame:
    """Return a frame with corrections added to its energy.

    Raises:
        ValueError: If the frame says that its energy includes some already.
    """
    return _changed(frame, kind, had=_WITHOUT, has=kind, sign=1)


def _changed(frame: Frame, kind: str, had: str, has: str, sign: int) -> Frame:
    told = str(frame.info.get("corrections", had))
    if told != had:
        raise ValueError(
            f"{frame.source}: the energy includes corrections {told!r}, not {had!r}: MP2020 and "
            "OMat24 corrections are never mixed; read the uncorrected energy"
        )
    if "energy" not in frame.labels:
        return frame
    try:
        energy = np.asarray(frame.labels["energy"] + sign * correction(frame.atoms, kind))
    except ValueError as error:
        raise ValueError(f"{frame.source}: {error}") from error
    return replace(
        frame,
        labels={**frame.labels, "energy": energy},
        info={**frame.info, "corrections": has},
    )


@cache
def _scheme(kind: str) -> Any:
    if kind not in KINDS:
        raise ValueError(f"corrections is {kind!r}{suggest(kind, KINDS)}")
    try:
        from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{kind} corrections are computed by pymatgen: pip install 'mlip-suite[corrections]'"
        ) from error
    file = paths.content("datasets") / "omat24" / "compatibility.yaml"
    config_file = str(file) if kind == "OMat24" else None
    return MaterialsProject2020Compatibility(check_potcar=False, config_file=config_file)


def _hubbards(composition: Any, settings: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the U of each metal that has one beside the most electronegative element, eV."""
    anion = max(composition.elements, key=lambda element: element.X).symbol
    known = settings.get(anion, {})
    return {
        element.symbol: float(known[element.symbol])
        for element in composition.elements
        if known.get(element.symbol, 0)
    }

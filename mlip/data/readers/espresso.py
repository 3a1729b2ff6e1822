"""Output of Quantum ESPRESSO's pw.x, by ASE's reader, and what ASE leaves out."""

import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.espresso import read_espresso_in, read_espresso_out
from ase.units import create_units

from mlip.data.fields import ASE
from mlip.data.json_stream import DAMAGE, open_plain
from mlip.data.readers.ase_files import fixed_components, record_of
from mlip.data.readers.charge_files import ChargesBeside
from mlip.data.readers.dft import (
    UNCONVERGED,
    UNFINISHED,
    convergence,
    require_choice,
    require_finite,
    unfinished_run,
)
from mlip.data.readers.format import Format
from mlip.data.record import Record

_END = "JOB DONE."
_STARTS = ("Program PWSCF", "ATOMIC_POSITIONS")
_RESULTS = ("!    total energy", "Forces acting on atoms", "total   stress",
            "Magnetic moment per site", "End of self-consistent calculation",
            "End of band structure calculation")  # fmt: skip
_FAILED = "convergence NOT achieved"
_TOTAL = re.compile(r"^\s*!?\s*total energy\s*=\s*(-?\d+\.\d+)\s*Ry", re.MULTILINE)
_FUNCTIONAL = re.compile(r"Exchange-correlation\s*=\s*([^\n(]+)")
_HUBBARD = re.compile(r"(LDA|DFT)\+U(\+V)? calculation|Hubbard projectors|U\(.*\)\s+\(eV\)")
_CUTOFF = re.compile(r"kinetic-energy cutoff\s*=\s*([\d.]+)\s*Ry")
_ELECTRONS = re.compile(r"number of electrons\s*=\s*([\d.]+)")
_SPECIES = re.compile(r"atomic species\s+valence\s+mass\s+pseudopotential\n((?:.*\S.*\n)+)")
_UPF = re.compile(r"PseudoPot\. #\s*\d+ for\s+(\S+)\s+read from file:\s*\n?\s*(\S+)")
_MAGNETIC = re.compile(r"^\s*atom:?\s+\d+.*\bmagn\s*[:=]\s*(-?\d+\.\d+)", re.MULTILINE)
_INPUTS = (".in", ".pwi", ".inp")
_RY = create_units("2006")["Ry"]  # the constants of pw.x, which ASE uses for the energies too


def read_espresso(
    path: Path,
    unconverged: str = "mark",
    unfinished: str = "refuse",
    charges: str | None = None,
) -> Iterator[Record]:
    """Yield the configurations of a pw.x output, plain or compressed.

    The energy is pw.x's total energy, which contains -TS where the occupations are smeared: the
    forces belong to it. Components fixed by ``if_pos`` are known from the ATOMIC_POSITIONS of the
    output, else from the input of the same name, or the only input, beside it. The dipole that
    a saw-tooth field gives has one component only and stays in the info as ``slab_dipole``.

    Args:
        path: The file.
        unconverged: ``mark`` configurations for which pw.x says "convergence NOT achieved" (info
            ``converged``; the energy is the last one printed), or ``refuse`` them.
        unfinished: ``refuse`` an output without "JOB DONE.", or ``keep`` all configurations but
            the last, which may be incomplete.
        charges: ``bader``, ``ddec6`` or ``none``; None takes what stands beside the file.

    Raises:
        ValueError: If the file is damaged or truncated, naming file and configuration.
    """
    require_choice(path, "unconverged", unconverged, UNCONVERGED)
    require_choice(path, "unfinished", unfinished, UNFINISHED)
    beside = ChargesBeside(path, charges)
    text = _text(path)
    parts = _parts(text)
    finished = _END in text.rpartition(_STARTS[0])[2]  # of the last run in the file
    complete = len(parts) if finished else max(len(parts) - 1, 0)
    if not finished:
        unfinished_run(path, complete, _END, unfinished)
    images = _images(path, text, complete)
    common, valences = _common(text)
    fixed = _fixed_of_input(path)
    for index, (atoms, part) in enumerate(zip(images, parts, strict=False)):
        source = f"{path}#{index}"
        record = _record(atoms, part, source)
        info = {**record.info, "frame_id": index, **common(atoms)}
        info |= convergence(source, _FAILED not in part, unconverged)
        held = _fixed(part, len(atoms), _fixed(text, len(atoms), fixed))
        record = replace(record, info=info, constrained=held)
        yield beside.attach(record, valences(atoms))
    beside.require_used()


def _text(path: Path) -> str:
    try:
        with open_plain(path) as handle:
            return handle.read().decode("utf-8", errors="replace")
    except DAMAGE as error:
        raise ValueError(
            f"{path} cannot be decompressed ({error}): the file is truncated or damaged: fetch it "
            "again"
        ) from error


def _parts(text: str) -> list[str]:
    """Return the text of each configuration that has results, as ASE divides the file."""
    starts = sorted(m.start() for word in _STARTS for m in re.finditer(re.escape(word), text))
    parts = [text[a:b] for a, b in zip(starts, [*starts, None][1:], strict=True)]
    return [part for part in parts if any(word in part for word in _RESULTS)]


def _images(path: Path, text: str, complete: int) -> list[Atoms]:
    try:
        images = list(read_espresso_out(StringIO(text), index=slice(0, complete)))
    except Exception as error:  # ASE's parser fails in many ways
        raise ValueError(
            f"{path} cannot be read as an output of pw.x ({type(error).__name__}: {error}); the "
            "file is truncated or damaged, or the calculation failed: fetch it again or repeat it"
        ) from error
    if len(images) != complete:
        raise ValueError(
            f"{path}: {len(images)} of {complete} configurations can be read; the file is damaged"
        )
    return images


def _record(atoms: Atoms, part: str, source: str) -> Record:
    record = record_of(atoms, source)
    info, arrays = dict(record.info), dict(record.arrays)
    info.pop("free_energy", None)
    if "energy" not in info and (printed := _TOTAL.findall(part)):
        info["energy"] = float(printed[-1]) * _RY
    if "energy" not in info:
        raise ValueError(f"{source} tells no total energy; take the file out or repeat the run")
    # ASE takes the last column, which in older versions of pw.x is the constraint.
    arrays.pop("magmoms", None)
    moments = _MAGNETIC.findall(part.rpartition("Magnetic moment per site")[2])
    if len(moments) == len(atoms):
        arrays["magmoms"] = np.array(moments, dtype=np.float64)
    if "dipole" in info:
        info["slab_dipole"] = info.pop("dipole")
    info["energy_kind"] = "free"
    forces = arrays.get("forces")
    if forces is not None and forces.shape != (len(atoms), 3):
        raise ValueError(f"{source} has {len(forces)} forces for {len(atoms)} atoms; it is damaged")
    require_finite(source, {"energy": info["energy"], "forces": forces})
    return replace(record, info=info, arrays=arrays, constrained=None)


def _common(text: str) -> tuple[Any, Any]:
    """Return what gives info and valences of a structure from what stands at the start."""
    species = _SPECIES.search(text)
    rows = [line.split() for line in species[1].splitlines()] if species else []
    valence = {row[0]: float(row[1]) for row in rows if len(row) > 2}
    elements = {re.sub(r"[\d_-].*", "", name).capitalize(): z for name, z in valence.items()}
    electrons, cutoff = _ELECTRONS.search(text), _CUTOFF.search(text)
    found: dict[str, Any] = {}
    if name := _FUNCTIONAL.search(text):
        found["functional"] = name[1].strip() + ("+U" if _HUBBARD.search(text) else "")
    if cutoff:
        found["encut"] = round(float(cutoff[1]) * _RY, 6)
    if files := sorted(set(_UPF.findall(text))):
        found["pseudopotentials"] = "; ".join(f"{k}: {Path(v).name}" for k, v in files)

    def valences(atoms: Atoms) -> np.ndarray | None:
        symbols = atoms.get_chemical_symbols()
        known = set(symbols) <= set(elements)
        return np.array([elements[symbol] for symbol in symbols]) if known else None

    def info(atoms: Atoms) -> dict[str, Any]:
        neutral = valences(atoms)
        if electrons is None or neutral is None:
            return found
        return found | {"total_charge": round(float(neutral.sum()) - float(electrons[1]), 4) + 0.0}

    return info, valences


def _fixed(text: str, natoms: int, otherwise: np.ndarray | None) -> np.ndarray | None:
    """Return the components whose ``if_pos`` is 0 in the first ATOMIC_POSITIONS of a text."""
    _, found, card = text.partition("ATOMIC_POSITIONS")
    if not found:
        return otherwise
    rows = [line.split() for line in card.splitlines()[1 : natoms + 1]]
    flags = [[word == "0" for word in row[4:7]] if len(row) >= 7 else [False] * 3 for row in rows]
    fixed = np.array(flags, dtype=bool).reshape(-1, 3)
    return fixed if fixed.any() and len(fixed) == natoms else None


def _fixed_of_input(path: Path) -> np.ndarray | None:
    files = sorted(x for x in path.parent.iterdir() if x.suffix in _INPUTS and x.is_file())
    inputs = {x: x.read_text(encoding="utf-8", errors="replace") for x in files}
    inputs = {x: text for x, text in inputs.items() if "ATOMIC_POSITIONS" in text}
    named = [x for x in inputs if x.stem == path.name.split(".")[0]]
    chosen = named or list(inputs)
    if len(chosen) != 1:
        return None
    try:
        atoms = read_espresso_in(StringIO(inputs[chosen[0]]))
    except Exception as error:  # ASE's parser fails in many ways
        raise ValueError(
            f"{chosen[0]}, which tells the fixed atoms of {path.name}, cannot be read "
            f"({type(error).__name__}: {error}); correct it or take it away"
        ) from error
    return fixed_components(atoms)


FORMAT = Format(
    name="espresso-out",
    read=read_espresso,
    fields=ASE,
    claims=lambda path, head: path.is_file() and b"ProgramPWSCF" in head[:4000],
)

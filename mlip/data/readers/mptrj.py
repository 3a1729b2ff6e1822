"""MPtrj (Deng et al. 2023): the one large JSON, and the parquet copy of MPContribs."""

from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.json_stream import cut, open_plain, stream, stream_part
from mlip.data.json_values import OBJECT, array_of, lazy, members
from mlip.data.pymatgen_structure import atoms_of
from mlip.data.readers.format import Format, Part
from mlip.data.record import Record
from mlip.errors import suggest

ENERGIES = {
    "uncorrected": "uncorrected_total_energy",
    "corrected": "corrected_total_energy",
}
"""Choices of energy: the DFT total energy, or with the MP2020 corrections."""

FUNCTIONAL = "PBE(+U), Materials Project"

_FIELDS = FieldMap.standard(
    {
        "energy": LabelSource(("energy",), "eV"),
        "forces": LabelSource(("force",), "eV/A"),
        "stress": LabelSource(("stress",), "kbar", "compression_positive"),
        "magmoms": LabelSource(("magmom",), "muB"),
    },
)
_KEPT = ("corrected_total_energy", "energy_per_atom", "ef_per_atom", "e_per_atom_relaxed",
         "ef_per_atom_relaxed", "bandgap", "uncorrected_total_energy")  # fmt: skip
_NEEDED = ("structure", "force", "stress")
_READ = {*_KEPT, *_NEEDED, "magmom"}


def read_mptrj(path: Path, energy: str = "uncorrected") -> Iterator[Record]:
    """Yield the frames of the MPtrj JSON (plain, gz, bz2, xz), one at a time.

    The layout is ``{mp_id: {frame_id: record}}``. Stress is VASP's, in kbar; ``magmom`` is
    absent where the file says null. Memory does not grow with the file.

    Args:
        path: ``MPtrj_2022.9_full.json`` or a part of it in the same layout.
        energy: ``uncorrected`` or ``corrected``; kept in ``info["corrections"]``.

    Raises:
        ValueError: If the file is damaged, or a record lacks a field, naming file and frame.
    """
    _require_energy(energy)
    for keys, value in stream(path, 2, lazy):
        yield _record(path, keys, value, energy)


def _parts(path: Path, frames: int) -> Iterator[Part]:
    """Yield the parts of a file, cut between materials; those of a compressed one as text."""
    with open_plain(path) as handle:
        compressed = not isinstance(handle, BufferedReader)
        for start, stop in cut(path, frames, _count):
            where: dict[str, Any] = {"start": start, "stop": stop}
            if compressed:
                handle.seek(start)
                where["text"] = handle.read(stop - start)
            yield Part(where, stop - start)


def _count(text: bytes) -> int:
    material = lazy(text)
    return len(material) if isinstance(material, OBJECT) else 1


def _part(
    path: Path, start: int, stop: int, text: bytes | None = None, energy: str = "uncorrected"
) -> Iterator[Record]:
    _require_energy(energy)
    if text is None:
        with path.open("rb") as handle:
            handle.seek(start)
            text = handle.read(stop - start)
    for keys, value in stream_part(path, text, start, 2, lazy):
        yield _record(path, keys, value, energy)


def _require_energy(energy: str) -> None:
    if energy not in ENERGIES:
        raise ValueError(f"energy is {energy!r}{suggest(energy, ENERGIES)}")


def _record(path: Path, keys: tuple[Any, ...], value: Any, energy: str) -> Record:
    source = f"{path}#{'#'.join(str(key) for key in keys[1:] or keys)}"
    if len(keys) != 2 or not isinstance(value, OBJECT):
        raise ValueError(
            f"{source} is {str(value)[:60]!r}, but the layout {{mp_id: {{frame_id: record}}}} is "
            "needed; fetch the file again"
        )
    held = members(value, _READ)
    for key in (*_NEEDED, ENERGIES[energy]):
        if key not in held:
            raise ValueError(
                f"{source} has no {key!r}; it holds {', '.join(sorted(held))}. "
                "Remove the record or fetch the file again"
            )
    info = {key: held[key] for key in _KEPT if key in held}
    info |= {
        "energy": held[ENERGIES[energy]],
        "stress": _array(held, "stress", source),
        "corrections": "MP2020" if energy == "corrected" else "none",
        "source_id": keys[0],
        "frame_id": keys[1],
        "trajectory_id": keys[1].rpartition("-")[0] or keys[1],
        "functional": FUNCTIONAL,
    }
    arrays = {key: _array(held, key, source) for key in ("force", "magmom") if key in held}
    return Record(atoms_of(held["structure"], source), info, arrays, source)


def _array(held: dict[str, Any], key: str, source: str) -> np.ndarray:
    try:
        return array_of(held[key])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source}: {key} is not an array of numbers ({error}); correct or remove the record"
        ) from error


def _claims(path: Path, head: bytes) -> bool:
    return head[:1] == b"{" and b'"uncorrected_total_energy":' in head


FORMAT = Format("mptrj", read_mptrj, _FIELDS, _claims, _parts, _part)

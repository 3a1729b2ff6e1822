"""Alexandria's relaxation paths: JSON of steps by material, as published (bz2)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.json_stream import stream
from mlip.data.pymatgen_structure import atoms_of
from mlip.data.readers.format import Format
from mlip.data.record import Record

_FIELDS = FieldMap.standard(
    {
        "energy": LabelSource(("energy",), "eV"),
        "forces": LabelSource(("forces",), "eV/A"),
        "stress": LabelSource(("stress",), "kbar", "compression_positive"),
    },
)
_NEEDED = ("structure", "energy", "forces", "stress")


def read_alexandria(path: Path) -> Iterator[Record]:
    """Yield every ionic step of ``alex_go_*.json.bz2``, one at a time.

    The layout is ``{material: [{"steps": [step, ...], ...}, ...]}``, a step holding ``structure``,
    ``energy``, ``forces`` and ``stress`` (VASP's, 3x3 in kbar).

    Args:
        path: File, plain or compressed.

    Raises:
        ValueError: If the file is damaged or a step lacks a field, naming file and step.
    """
    for keys, value in stream(path, 4):
        if len(keys) == 4 and keys[2] == "steps":
            yield _record(path, keys, value)


def _record(path: Path, keys: tuple[Any, ...], value: Any) -> Record:
    material, calculation, _, step = keys
    frame = f"{material}-{calculation}-{step}"
    source = f"{path}#{frame}"
    missing = [key for key in _NEEDED if not isinstance(value, dict) or value.get(key) is None]
    if missing:
        raise ValueError(f"{source} has no {missing[0]!r}; remove the step or fetch the file again")
    info = {"energy": value["energy"], "stress": value["stress"]}
    info |= {"frame_id": frame, "source_id": str(material)}
    info["trajectory_id"] = f"{material}-{calculation}"
    return Record(atoms_of(value["structure"], source), info, {"forces": value["forces"]}, source)


def _claims(path: Path, head: bytes) -> bool:
    return head[:1] == b"{" and b'"steps":[' in head and b'"sites":[' in head


FORMAT = Format("alexandria", read_alexandria, _FIELDS, _claims)

"""Structures and computed entries that pymatgen wrote: one, a list of them, or ``entries``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.json_stream import stream
from mlip.data.pymatgen_structure import atoms_of, site_property
from mlip.data.readers.format import Format
from mlip.data.record import Record

_FIELDS = FieldMap.standard(
    {"energy": LabelSource(("energy",), "eV"), "magmoms": LabelSource(("magmom",), "muB")},
)
_KEPT = ("entry_id", "correction", "parameters", "data", "composition")


def read_pymatgen(path: Path) -> Iterator[Record]:
    """Yield the structures of a pymatgen JSON file, plain or compressed.

    Accepted are a ``Structure`` or ``Molecule``, a ``ComputedStructureEntry`` (energy in eV,
    uncorrected), a list of either, and ``{"entries": [...]}`` as Alexandria publishes them.

    Args:
        path: The file.

    Raises:
        ValueError: If an item is none of these, or is damaged, naming file and item.
    """
    for number, (keys, value) in enumerate(_items(path)):
        yield _record(value, f"{path}#{number}", keys)


def _items(path: Path) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the items one at a time where the file is a list or has ``entries``."""
    whole: dict[str, Any] = {}
    for keys, value in stream(path, 1):
        if isinstance(keys[0], int):
            yield keys, value
        else:
            whole[keys[0]] = value
    if isinstance(whole.get("entries"), list):
        for number, value in enumerate(whole["entries"]):
            yield ("entries", number), value
    elif whole:
        yield (0,), whole


def _record(value: Any, source: str, keys: tuple[str | int, ...]) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"{source} is {str(value)[:60]!r}, not a structure; correct the file")
    structure = value if "sites" in value else value.get("structure")
    if not isinstance(structure, dict):
        raise ValueError(
            f"{source} has neither sites nor a structure; it holds {', '.join(sorted(value))}. "
            "Name a file of structures or computed structure entries"
        )
    info: dict[str, Any] = {"frame_id": str(value.get("entry_id") or keys[-1])}
    if structure is not value:
        info |= {key: value[key] for key in _KEPT if value.get(key) is not None}
        if value.get("energy") is not None:
            info["energy"] = value["energy"]
    data = value.get("data") if isinstance(value.get("data"), dict) else {}
    info["source_id"] = str((data or {}).get("mat_id") or info["frame_id"])
    atoms, arrays = atoms_of(structure, source), {}
    if structure.get("charge"):
        info["total_charge"] = structure["charge"]
    if (magmoms := site_property(structure, "magmom")) is not None:
        arrays["magmom"] = magmoms
    return Record(atoms, info, arrays, source)


def _claims(path: Path, head: bytes) -> bool:
    if b'"uncorrected_total_energy":' in head or b'"matpes_id":' in head or b'"steps":[' in head:
        return False
    return head[:1] in (b"[", b"{") and b'"sites":[' in head and b'"species":[' in head


FORMAT = Format("pymatgen", read_pymatgen, _FIELDS, _claims)

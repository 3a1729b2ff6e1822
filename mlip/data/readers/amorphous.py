"""The ab initio non-crystalline structure database (Zheng et al. 2024): trajectories and tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.json_stream import open_plain, stream
from mlip.data.pymatgen_structure import atoms_of, site_property
from mlip.data.pymatgen_trajectory import Step, steps_of
from mlip.data.readers.dft import masked
from mlip.data.readers.format import Format
from mlip.data.record import Record

_ENERGIES = ("e_0_energy", "total", "energy", "e_wo_entrp")
_FIELDS = FieldMap.standard(
    {
        "energy": LabelSource(_ENERGIES, "eV"),
        "forces": LabelSource(("forces",), "eV/A"),
        "stress": LabelSource(("stress", "stresses"), "kbar", "compression_positive"),
        "magmoms": LabelSource(("magmom",), "muB"),
    },
)
_COLUMNS = ("energy", "forces", "stress", "temperature_K", "diffusivity")


def read_amorphous(path: Path) -> Iterator[Record]:
    """Yield the structures of the database, plain or compressed, in either of its layouts.

    *Trajectories* (figshare, and the public bucket of the Materials Project): one
    ``{"metadata": {...}, "trajectory": {...}}`` a line, the trajectory as pymatgen writes it; each
    step is a record, with the energy, forces and stress (VASP's, kbar) that its
    ``frame_properties`` hold. *Contributions* (MPContribs): a list of ``{"identifier", "data",
    "structures"}``; each structure is a record. No column is taken for granted:
    ``info["columns_found"]`` and ``info["columns_missing"]`` say what a record has.
    ``info["temperature_K"]`` is in K, ``info["diffusivity_Li"]`` (and of every other element) as
    published, in ``info["diffusivity_unit"]``.

    Memory is bounded by the largest line or contribution.

    Args:
        path: ``.json``, ``.jsonl``, or either compressed; or a folder such as the bucket's
            ``temperature=1000K`` or one above it, all whose files are read.

    Raises:
        ValueError: If the file is damaged, or an entry has no structure, saying what it has.
    """
    if path.is_dir():
        for file in sorted(path.rglob("*.json*")):
            yield from read_amorphous(file)
        return
    for keys, value in stream(path, _depth(path)):
        number = "#".join(map(str, keys))
        if isinstance(value, Mapping) and isinstance(value.get("data"), list):
            for place, entry in enumerate(value["data"]):  # a page as the server sends it
                yield from _entry(entry, f"{path}#{number}#{place}")
        else:
            yield from _entry(value, f"{path}#{number}")


def _depth(path: Path) -> int:
    with open_plain(path) as handle:
        return int(handle.read(64).lstrip()[:1] == b"[")


def _entry(entry: Any, source: str) -> Iterator[Record]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{source} is {str(entry)[:60]!r}, not an entry; fetch the file again")
    if isinstance(entry.get("trajectory"), Mapping):
        yield from _trajectory(entry, source)
        return
    structures = entry.get("structures") or []
    if not structures or not all(isinstance(s, Mapping) and "sites" in s for s in structures):
        raise ValueError(
            f"{source} holds no structure: it has {', '.join(_paths(entry))}. Pull the set again "
            "with its structures (mlip data pull amorphous_diffusivity subset=contributions), or "
            "remove the entry"
        )
    info = {**_identity(entry, entry.get("id") or entry.get("identifier") or source)}
    info |= _measured(entry.get("data") or {})
    for number, structure in enumerate(structures):
        identity = {"frame_id": f"{info['source_id']}-{number}"}
        if structure.get("name"):
            identity["structure_name"] = str(structure["name"])
        atoms = atoms_of(structure, f"{source}#{number}")
        magmoms = site_property(structure, "magmom")
        arrays = {} if magmoms is None else {"magmom": np.asarray(magmoms)}
        yield _told(Record(atoms, {**info, **identity}, arrays, f"{source}#{number}"))


def _trajectory(entry: Mapping[str, Any], source: str) -> Iterator[Record]:
    metadata = entry.get("metadata") or {}
    name = str(metadata.get("contribs_id") or metadata.get("_id") or source)
    info = {**_identity(metadata, name), **_measured(metadata)}
    info["trajectory_id"] = str(metadata.get("_id") or name)
    if isinstance(step := entry["trajectory"].get("time_step"), int | float):
        info["time_step_fs"] = step
    for number, step in enumerate(steps_of(entry["trajectory"], source)):
        identity = {"frame_id": f"{info['trajectory_id']}-{number}"}
        yield _told(_step(step, {**info, **identity}, f"{source}#{number}"))


def _step(step: Step, info: dict[str, Any], source: str) -> Record:
    arrays = {key: np.asarray(value) for key, value in step.sites.items() if key == "magmom"}
    if "forces" in step.properties:
        arrays["forces"] = np.asarray(step.properties["forces"], dtype=np.float64)
    info |= {
        key: value
        for key, value in step.properties.items()
        if isinstance(value, int | float) or key in ("stress", "stresses")
    }
    moves = step.sites.get("selective_dynamics")
    flags = None if moves is None else ~np.asarray(moves, dtype=bool)  # of lattice directions
    fixed = None if flags is None else masked(flags, step.atoms.cell.array)
    return Record(step.atoms, info, arrays, source, fixed)


def _identity(entry: Mapping[str, Any], name: Any) -> dict[str, Any]:
    info = {"source_id": str(name)}
    for key in ("identifier", "formula"):
        if entry.get(key):
            info[key] = str(entry[key])
    return info


def _measured(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return temperature and diffusivities, wherever they stand in a contribution's data."""
    info: dict[str, Any] = {}
    if isinstance(data.get("chemsys"), str):
        info["chemsys"] = data["chemsys"]
    value, _ = _quantity(data.get("temperature"))
    if value is not None:
        info["temperature_K"] = value
    for branch in _branches(data):
        value, unit = _quantity(branch.get("diffusivity"))
        if value is not None and isinstance(branch.get("element"), str):
            info[f"diffusivity_{branch['element']}"] = value
            info["diffusivity_unit"] = unit or "not stated"
    return info


def _branches(data: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(data, Mapping):
        yield data
        for value in data.values():
            yield from _branches(value)
    elif isinstance(data, list):
        for value in data:
            yield from _branches(value)


def _quantity(given: Any) -> tuple[float | None, str]:
    """Return number and unit of ``{"value": 1000, "unit": "K"}``, ``1000`` or ``"1000 K"``."""
    if isinstance(given, Mapping):
        value, unit = given.get("value"), str(given.get("unit") or "")
    elif isinstance(given, str):
        value, _, unit = given.strip().partition(" ")
    else:
        value, unit = given, ""
    try:
        return (None, unit) if value is None else (float(value), unit)
    except (TypeError, ValueError):
        return None, unit


def _told(record: Record) -> Record:
    """Note which columns the record has, and which it lacks."""
    keys = {**record.info, **record.arrays}
    present = {
        "energy": any(key in keys for key in _ENERGIES),
        "forces": "forces" in keys,
        "stress": "stress" in keys or "stresses" in keys,
        "temperature_K": "temperature_K" in keys,
        "diffusivity": "diffusivity_unit" in keys,
    }
    record.info["columns_found"] = ", ".join(name for name in _COLUMNS if present[name]) or "none"
    missing = [name for name in _COLUMNS if not present[name]]
    record.info["columns_missing"] = ", ".join(missing) or "none"
    return record


def _paths(entry: Mapping[str, Any], before: str = "") -> list[str]:
    """Return the dotted names of what an entry holds, two levels deep."""
    found = []
    for key, value in entry.items():
        deeper = isinstance(value, Mapping) and not before and value
        found += _paths(value, f"{key}.") if deeper else [f"{before}{key}"]
    return found


def _claims(path: Path, head: bytes) -> bool:
    if path.is_dir():
        return any(any(path.glob(name)) for name in ("chemical_system=*", "temperature=*"))
    if head[:1] not in (b"{", b"["):
        return False
    if b'"trajectory":{' in head and (b'"metadata":{' in head or b'"species":[' in head):
        return True
    marks = (b'"chemsys":', b'"diffusivity":', b'"structures":[')
    return b'"identifier":' in head and any(mark in head for mark in marks)


FORMAT = Format("amorphous", read_amorphous, _FIELDS, _claims)

"""MatPES (Kaplan et al. 2025): a JSON list of entries, or one entry a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlip.data.fields import VOIGT, FieldMap, LabelSource
from mlip.data.json_stream import open_plain, stream
from mlip.data.pymatgen_structure import atoms_of, site_property
from mlip.data.readers.format import Format
from mlip.data.record import Record
from mlip.errors import suggest

CHARGES = {"ddec6": ("ddec6", "partial_charges"), "cm5": ("cm5_partial_charges",)}
"""Where the net atomic charges of release 2025.2 stand."""

FIELDS = FieldMap.standard(
    {
        "energy": LabelSource(("energy",), "eV"),
        "forces": LabelSource(("forces",), "eV/A"),
        "stress": LabelSource(("stress",), "kbar", "compression_positive", VOIGT),
        "charges": LabelSource(("charges",), "e"),
        "magmoms": LabelSource(("magmoms",), "muB"),
    },
)
_KEPT = ("matpes_id", "functional", "bandgap", "cohesive_energy_per_atom",
         "formation_energy_per_atom", "chemsys")  # fmt: skip
_NEEDED = ("structure", "energy", "forces", "stress")


def read_matpes(path: Path, charges: str = "ddec6") -> Iterator[Record]:
    """Yield the entries of a MatPES file, plain or compressed, one at a time.

    Stress is VASP's, six components in kbar (xx, yy, zz, yz, xz, xy). ``bader_charges`` are
    numbers of valence electrons and not net charges, so they are not read as charges.

    Args:
        path: ``MatPES-PBE-2025.1.json.gz`` for instance.
        charges: ``ddec6`` or ``cm5``; absent where the file has none.

    Raises:
        ValueError: If the file is damaged or an entry lacks a field, naming file and entry.
    """
    if charges not in CHARGES:
        raise ValueError(f"charges is {charges!r}{suggest(charges, CHARGES)}")
    depth = 0 if _is_lines(path) else 1
    for keys, value in stream(path, depth):
        yield _record(path, keys[0], value, charges)


def _is_lines(path: Path) -> bool:
    with open_plain(path) as handle:
        return handle.read(64).lstrip()[:1] == b"{"


def _record(path: Path, number: str | int, value: Any, charges: str) -> Record:
    source = f"{path}#{number}"
    if not isinstance(value, dict):
        raise ValueError(f"{source} is {str(value)[:60]!r}, not an entry; fetch the file again")
    for key in _NEEDED:
        if value.get(key) is None:
            raise ValueError(
                f"{source} has no {key!r}; it holds {', '.join(sorted(value))}. Remove the entry "
                "or fetch the file again"
            )
    provenance = value.get("provenance") or {}
    info = {key: value[key] for key in _KEPT if value.get(key) is not None}
    info |= {key: item for key, item in provenance.items() if item is not None}
    info |= {"energy": value["energy"], "stress": value["stress"]}
    info["frame_id"] = str(value.get("matpes_id", number))
    info["source_id"] = str(provenance.get("original_mp_id") or info["frame_id"])
    arrays = {"forces": value["forces"]}
    if (found := _charges(value, charges)) is not None:
        arrays["charges"] = found
    atoms = atoms_of(value["structure"], source)
    if (magmoms := site_property(value["structure"], "magmom")) is not None:
        arrays["magmoms"] = magmoms
    return Record(atoms, info, arrays, source)


def _charges(value: dict[str, Any], charges: str) -> Any:
    found: Any = value
    for key in CHARGES[charges]:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _claims(path: Path, head: bytes) -> bool:
    return head[:1] in (b"[", b"{") and b'"matpes_id":' in head and b'"structure":' in head


FORMAT = Format("matpes", read_matpes, FIELDS, _claims)

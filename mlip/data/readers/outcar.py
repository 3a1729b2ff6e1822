"""VASP's OUTCAR, one ionic step at a time, by ASE's parsers of its parts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixScaled
from ase.io import read as ase_read
from ase.io.vasp_parsers import vasp_outcar_parsers as parsers

from mlip.data.fields import ASE
from mlip.data.json_stream import DAMAGE, open_plain
from mlip.data.readers import vasp_settings
from mlip.data.readers.ase_files import record_of
from mlip.data.readers.charge_files import ChargesBeside
from mlip.data.readers.dft import (
    UNCONVERGED,
    UNFINISHED,
    convergence,
    masked,
    require_choice,
    require_finite,
    unfinished_run,
)
from mlip.data.readers.format import Format
from mlip.data.readers.vasprun import ENERGIES
from mlip.data.record import Record

_END = "General timing and accounting"
_STEP_ENDS = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_ABORT = "aborting loop"
_REACHED = "EDIFF is reached"
_BORN = "BORN EFFECTIVE CHARGES"
_TAG = re.compile(r"\b([A-Z][A-Z_]*)\s*=\s*([^\s;]+)")
_TAGS = ("GGA", "METAGGA", "LEXCH", "LHFCALC", "HFSCREEN", "AEXX", "LDAU", "IVDW", "LUSE_VDW",
         "ENCUT", "NELECT", "ISPIN", "LNONCOLLINEAR")  # fmt: skip
_LEXCH = {"2": "CA", "7": "91", "8": "PE", "13": "AM", "14": "PS"}


def read_outcar(
    path: Path,
    energy: str = "sigma0",
    unconverged: str = "mark",
    unfinished: str = "refuse",
    charges: str | None = None,
) -> Iterator[Record]:
    """Yield the ionic steps of an OUTCAR, plain or compressed, in bounded memory.

    Energies as in :func:`mlip.data.readers.vasprun.read_vasprun`. An OUTCAR does not tell which
    atoms are held fixed: the flags of the CONTCAR or POSCAR beside it are used. Born effective
    charges, which stand behind the last step, go to the last step.

    Args:
        path: The file.
        energy: ``sigma0``, or ``free`` for the energy that the forces belong to.
        unconverged: ``mark`` steps that did not reach EDIFF (info ``converged``), or ``refuse``.
        unfinished: ``refuse`` a run that did not finish, or ``keep`` its complete steps.
        charges: ``bader``, ``ddec6`` or ``none``; None takes what stands beside the file.

    Raises:
        ValueError: If the file is damaged or truncated, naming file and step.
    """
    require_choice(path, "energy", energy, ENERGIES)
    require_choice(path, "unconverged", unconverged, UNCONVERGED)
    require_choice(path, "unfinished", unfinished, UNFINISHED)
    beside = ChargesBeside(path, charges)
    fixed = fixed_beside(path)
    held: Record | None = None
    for found in _read(path, energy, unconverged, unfinished):
        if isinstance(found, np.ndarray):
            if held is not None:
                held = replace(held, arrays={**held.arrays, "born_effective_charges": found})
            continue
        if held is not None:
            yield held
        record, valences = found
        if fixed is not None:
            _require_as_many(path, fixed, record.atoms)
            record = replace(record, constrained=masked(fixed, record.atoms.cell.array))
        held = beside.attach(record, valences)
    if held is not None:
        yield held
    beside.require_used()


def fixed_beside(path: Path) -> np.ndarray | None:
    """Return the flags of the CONTCAR or POSCAR beside a file: (atoms, 3), True where fixed.

    Raises:
        ValueError: If that file cannot be read.
    """
    for name in ("CONTCAR", "POSCAR"):
        file = path.parent / name
        if not file.is_file() or file.stat().st_size == 0:
            continue
        try:
            atoms = ase_read(file, format="vasp")
        except Exception as error:  # ASE's parser fails in many ways
            raise ValueError(
                f"{file}, which tells the fixed atoms of {path.name}, cannot be read "
                f"({type(error).__name__}: {error}); correct it or take it away"
            ) from error
        assert isinstance(atoms, Atoms)
        return _flags(atoms)
    return None


@dataclass
class _Header:
    """What stands before the first electronic step."""

    parsed: dict[str, Any]
    tags: dict[str, str] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    valences: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    @property
    def valences_of_atoms(self) -> np.ndarray | None:
        known = len(self.valences) == len(self.counts) > 0
        return np.repeat(self.valences, self.counts) if known else None

    @property
    def info(self) -> dict[str, Any]:
        kinds = list(dict.fromkeys(self.parsed["symbols"]))
        titles = self.titles if len(self.titles) == len(kinds) else []
        found: dict[str, Any] = {
            "functional": vasp_settings.functional(self.tags, titles)
        } | vasp_settings.settings(self.tags)
        if titles:
            found["pseudopotentials"] = vasp_settings.pseudopotentials(kinds, titles)
        electrons = self.tags.get("NELECT")
        number = float(electrons) if electrons else None
        charge = vasp_settings.total_charge(number, self.valences, self.counts)
        return found if charge is None else found | {"total_charge": charge}


def _read(
    path: Path, energy: str, unconverged: str, unfinished: str
) -> Iterator[tuple[Record, np.ndarray | None] | np.ndarray]:
    """Yield (record, valences) of each step, then the Born charges if there are any."""
    index = 0
    try:
        with TextIOWrapper(open_plain(path), encoding="latin-1") as handle:  # type: ignore[arg-type]
            header, lines = _header(path, handle)
            while lines := _step(handle, lines):
                if not any(_STEP_ENDS in line for line in lines[-5:]):
                    break
                source = f"{path}#{index}"
                record = _record(header, lines, source, energy, unconverged)
                info = {**record.info, "frame_id": index, **header.info}
                yield replace(record, info=info), header.valences_of_atoms
                index, lines = index + 1, []
            if not any(_END in line for line in lines):
                unfinished_run(path, index, _END, unfinished)
            elif (born := _born(lines, len(header.parsed["symbols"]), path)) is not None:
                yield born
    except DAMAGE as error:
        raise ValueError(
            f"{path}#{index} cannot be decompressed ({error}) behind {index} complete ionic "
            "steps; the file is truncated or damaged: fetch it again"
        ) from error


def _header(path: Path, handle: TextIO) -> tuple[_Header, list[str]]:
    lines: list[str] = []
    for line in handle:
        lines.append(line)
        if "Iteration" in line:
            break
    else:
        unfinished_run(path, 0, _END, "refuse")
    try:
        parsed = parsers.OutcarHeaderParser().build(lines)
    except Exception as error:  # ASE's parsers fail in many ways
        raise ValueError(
            f"{path}: what stands before the first step cannot be read ({type(error).__name__}: "
            f"{error}); the file is truncated or damaged: fetch it again"
        ) from error
    header = _Header(dict(parsed))
    for place, line in enumerate(lines):
        _read_line(header, line, lines[place + 1] if place + 1 < len(lines) else "")
    if header.tags.get("GGA", "--") == "--" and header.tags.get("LEXCH") in _LEXCH:
        header.tags["GGA"] = _LEXCH[header.tags["LEXCH"]]
    return header, lines[-1:]


def _read_line(header: _Header, line: str, following: str) -> None:
    for tag, value in _TAG.findall(line):
        if tag in _TAGS:
            header.tags.setdefault(tag, value)
    if "TITEL" in line:
        header.titles.append(line.split("=", 1)[1].strip())
    elif "ions per type" in line:
        header.counts = [int(word) for word in line.split("=")[1].split()]
    elif "Ionic Valenz" in line and "=" in following:
        header.valences = [float(word) for word in following.split("=")[1].split()]


def _step(handle: TextIO, lines: list[str]) -> list[str]:
    """Return the lines up to the energies that end a step, or the rest of the file."""
    for line in handle:
        lines.append(line)
        if _STEP_ENDS in line:
            return lines + [line for _, line in zip(range(4), handle, strict=False)]
    return lines


def _record(
    header: _Header, lines: list[str], source: str, energy: str, unconverged: str
) -> Record:
    try:
        atoms = parsers.OutcarChunkParser(header.parsed).build(lines)
    except Exception as error:  # ASE's parsers fail in many ways
        raise ValueError(
            f"{source}: the step cannot be read ({type(error).__name__}: {error}); the file is "
            "truncated or damaged, or the calculation failed: fetch it again or repeat it"
        ) from error
    record = record_of(atoms, source)
    info, arrays = dict(record.info), dict(record.arrays)
    missing = {"energy", "free_energy"} - set(info) | {"forces"} - set(arrays)
    if missing:
        raise ValueError(f"{source} lacks {', '.join(sorted(missing))}; the file is damaged")
    require_finite(source, {key: info[key] for key in ("energy", "free_energy")} | arrays)
    if np.ndim(arrays.get("magmoms", 0)) > 1:
        arrays["magmom_vectors"] = arrays.pop("magmoms")
    info["energy_kind"] = energy
    if energy == "free":
        info["energy"] = info["free_energy"]
    reached = any(_ABORT in line and _REACHED in line for line in lines)
    info |= convergence(source, reached, unconverged)
    return replace(record, info=info, arrays=arrays, constrained=None)


def _born(lines: list[str], natoms: int, path: Path) -> np.ndarray | None:
    """Return (atoms, 3, 3) in e: dP_i/du_j, the rows as VASP prints them."""
    starts = [place for place, line in enumerate(lines) if _BORN in line]
    if not starts:
        return None
    rows = [line.split() for line in lines[starts[-1] :]]
    rows = [row for row in rows[: 4 * natoms + 6] if len(row) == 4 and row[0] in ("1", "2", "3")]
    try:
        return np.array([row[1:] for row in rows], dtype=np.float64).reshape(natoms, 3, 3)
    except ValueError as error:
        raise ValueError(
            f"{path}: the Born effective charges are not three rows for each of {natoms} atoms "
            f"({error}); the file is damaged: fetch it again"
        ) from error


def _flags(atoms: Atoms) -> np.ndarray | None:
    fixed = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixScaled):
            fixed[constraint.index] = constraint.mask
    return fixed if fixed.any() else None


def _require_as_many(path: Path, fixed: np.ndarray, atoms: Atoms) -> None:
    if len(fixed) != len(atoms):
        raise ValueError(
            f"{path} has {len(atoms)} atoms, but the CONTCAR or POSCAR beside it, which tells the "
            f"fixed atoms, has {len(fixed)}; take the file of this calculation"
        )


FORMAT = Format(
    name="vasp-out",
    read=read_outcar,
    fields=ASE,
    claims=lambda path, head: (
        path.is_file() and ("OUTCAR" in path.name or head.startswith(b"vasp."))
    ),
)

"""VASP's vasprun.xml, one ionic step at a time: labels, convergence, fixed atoms, total charge."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

import numpy as np
from ase import Atoms
from ase.io.vasp import atoms_from_step

from mlip.data.fields import ASE
from mlip.data.json_stream import BLOCK, DAMAGE, open_plain
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
from mlip.data.record import Record

ENERGIES = ("sigma0", "free")
_END = "</modeling>"
_ENERGIES = {"e_wo_entrp", "e_fr_energy", "e_0_energy"}


def read_vasprun(
    path: Path,
    energy: str = "sigma0",
    unconverged: str = "mark",
    unfinished: str = "refuse",
    charges: str | None = None,
) -> Iterator[Record]:
    """Yield the ionic steps of a vasprun.xml, plain or compressed, in bounded memory.

    The forces of VASP are the gradient of the *free* energy (TOTEN, electronic entropy included);
    the energy extrapolated to no smearing, which Materials Project, MPtrj and OMat24 publish, is
    read by default. The two differ where ISMEAR smears a metal. Both are kept: ``free_energy``
    stays in the info. Born effective charges are dP_i/du_j, as VASP prints them. A dipole moment
    stays in the info as ``vasp_dipole``: its sign depends on VASP's version, and along directions
    that are periodic it says nothing.

    Args:
        path: The file.
        energy: ``sigma0``, or ``free`` for the energy that the forces belong to.
        unconverged: ``mark`` steps whose electronic steps reached NELM (info ``converged``), or
            ``refuse`` them.
        unfinished: ``refuse`` a run that did not finish, or ``keep`` its complete steps.
        charges: ``bader``, ``ddec6`` or ``none``; None takes what stands beside the file, see
            :class:`mlip.data.readers.charge_files.ChargesBeside`.

    Raises:
        ValueError: If the file is damaged or truncated, a step is incomplete or comes from a
            machine-learned force field, naming file and step.
    """
    require_choice(path, "energy", energy, ENERGIES)
    require_choice(path, "unconverged", unconverged, UNCONVERGED)
    require_choice(path, "unfinished", unfinished, UNFINISHED)
    header = _Header(path)
    beside = ChargesBeside(path, charges)
    for index, step in enumerate(_steps(path, header, unfinished)):
        source = f"{path}#{index}"
        atoms = _atoms(step, header, source)
        record = _record(atoms, header, source, energy)
        info = convergence(source, header.is_converged(step), unconverged)
        info |= {"frame_id": index} | header.info
        yield beside.attach(replace(record, info=record.info | info), header.valences_of_atoms)
    beside.require_used()


@dataclass
class _Header:
    """What stands before the first ionic step."""

    path: Path
    tags: dict[str, str] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    valences: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    fixed: np.ndarray | None = None

    def read(self, element: Element) -> None:
        """Take what a finished element of the file says."""
        if element.tag in ("incar", "parameters"):
            known = {e.get("name", "").upper(): (e.text or "").strip() for e in element.iter("i")}
            self.tags = known | self.tags  # INCAR stands first, and VASP cuts words in parameters
        elif element.tag == "atominfo":
            self._read_atoms(element)
        elif element.tag == "structure" and element.get("name") == "initialpos":
            flags = [row.text.split() for row in element.iterfind("varray[@name='selective']/v")
                     if row.text]  # fmt: skip
            self.fixed = np.array([[flag[:1] == "F" for flag in row] for row in flags], dtype=bool)

    def _read_atoms(self, element: Element) -> None:
        self.symbols = [_cells(row)[0] for row in element.iterfind("array[@name='atoms']/set/rc")]
        rows = [_cells(row) for row in element.iterfind("array[@name='atomtypes']/set/rc")]
        self.counts = [int(row[0]) for row in rows]
        self.kinds = [row[1] for row in rows]
        self.valences = [float(row[3]) for row in rows]
        self.titles = [row[4] for row in rows]

    @property
    def valences_of_atoms(self) -> np.ndarray | None:
        """ZVAL of each atom, in e."""
        if sum(self.counts) != len(self.symbols) or not self.counts:
            return None
        return np.repeat(self.valences, self.counts)

    @property
    def info(self) -> dict[str, Any]:
        """Functional, settings and total charge; the same for every step."""
        found: dict[str, Any] = {
            "functional": vasp_settings.functional(self.tags, self.titles),
            "pseudopotentials": vasp_settings.pseudopotentials(self.kinds, self.titles),
        } | vasp_settings.settings(self.tags)
        electrons = self.tags.get("NELECT")
        number = float(electrons) if electrons else None
        charge = vasp_settings.total_charge(number, self.valences, self.counts)
        return found if charge is None else found | {"total_charge": charge}

    def is_converged(self, step: Element) -> bool:
        """Whether fewer than NELM electronic steps were made, the rule of pymatgen's ``Vasprun``.

        Linear-response steps follow the self-consistent ones, the last of which lists every
        contribution to the energy, and are not counted. One exact diagonalisation (ALGO = Exact,
        NELM = 1) needs no iteration.
        """
        most = int(self.tags.get("NELM", "60"))
        if self.tags.get("ALGO", "").upper().startswith("E") and most == 1:
            return True
        sizes = [len(scf.findall("energy/i")) for scf in step.iterfind("scstep")]
        made = len(sizes)
        if self.tags.get("LEPSILON", "F").strip(".")[:1] == "T":
            full = [place for place, size in enumerate(sizes) if size > len(_ENERGIES)]
            made = full[1] + 1 if len(full) > 1 else made
        return made < most


def _steps(path: Path, header: _Header, unfinished: str) -> Iterator[Element]:
    """Yield the calculation elements; each is emptied once it was used."""
    complete = 0
    _refuse_doctype(path)
    try:
        with open_plain(path) as handle:
            stack: list[Element] = []
            for event, element in ElementTree.iterparse(handle, ("start", "end")):
                if event == "start":
                    stack.append(element)
                    continue
                stack.pop()
                if element.tag == "calculation":
                    _require_header(path, header)
                    yield element
                    complete += 1
                if len(stack) == 1:
                    header.read(element)
                    stack[0].clear()
    except ElementTree.ParseError as error:
        if _is_truncated(error):
            unfinished_run(path, complete, _END, unfinished)
            return
        raise ValueError(
            f"{path}#{complete} is not XML ({error}); the file is damaged behind {complete} "
            "complete ionic steps: fetch it again or repeat the calculation"
        ) from error
    except DAMAGE as error:
        raise ValueError(
            f"{path}#{complete} cannot be decompressed ({error}) behind {complete} complete ionic "
            "steps; the file is truncated or damaged: fetch it again"
        ) from error


def _is_truncated(error: ElementTree.ParseError) -> bool:
    codes = expat.errors.codes  # type: ignore[attr-defined]
    names = ("no element found", "unclosed token", "unclosed CDATA section", "partial character")
    return error.code in {codes[name] for name in names if name in codes}


def _require_header(path: Path, header: _Header) -> None:
    if not header.symbols:
        raise ValueError(f"{path} names no atoms before its first step; it is no vasprun.xml")


def _refuse_doctype(path: Path) -> None:
    """Refuse a document type, which VASP does not write and which could define entities."""

    def refuse(*_: Any) -> None:
        raise ValueError(f"{path} declares a document type, which vasprun.xml has not; not read")

    def stop(*_: Any) -> None:
        raise StopIteration

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        with open_plain(path) as handle:
            _feed(parser, handle)
    except (StopIteration, expat.ExpatError, *DAMAGE):
        return  # the root begins, or what is damaged is told when it is read


def _feed(parser: Any, handle: IO[bytes]) -> None:
    while block := handle.read(BLOCK):
        parser.Parse(block, False)


def _atoms(step: Element, header: _Header, source: str) -> Atoms:
    """Return the step as ASE reads it; its shapes are checked before, which ASE does not."""
    if step.find("scstep") is None:
        raise ValueError(
            f"{source} has no electronic steps: it comes from a machine-learned force field, not "
            "from DFT; take the DFT steps from ML_AB, or leave the calculation out"
        )
    natoms = len(header.symbols)
    _require_rows(step, "structure/crystal/varray[@name='basis']/v", 3, source)
    _require_rows(step, "structure/varray[@name='positions']/v", natoms, source)
    for name, rows in (("forces", natoms), ("stress", 3)):
        if step.find(f"varray[@name='{name}']") is not None:
            _require_rows(step, f"varray[@name='{name}']/v", rows, source)
    empty = Atoms(header.symbols, np.zeros((natoms, 3)), cell=np.eye(3), pbc=True)
    try:
        parameters = {"pstress": float(header.tags.get("PSTRESS", 0.0))}
        return atoms_from_step(step, [], [], parameters, empty, natoms)
    except Exception as error:  # whatever a missing or broken value makes ASE raise
        raise ValueError(
            f"{source}: the step cannot be read ({type(error).__name__}: {error}); the file is "
            "damaged, or the calculation failed: fetch it again or repeat the calculation"
        ) from error


def _require_rows(step: Element, where: str, rows: int, source: str) -> None:
    found = step.findall(where)
    if len(found) != rows or any(len((row.text or "").split()) != 3 for row in found):
        raise ValueError(
            f"{source}: {where} has {len(found)} rows of three numbers where {rows} are needed; "
            "the file is damaged: fetch it again or repeat the calculation"
        )


def _record(atoms: Atoms, header: _Header, source: str, energy: str) -> Record:
    record = record_of(atoms, source)
    info = dict(record.info)
    require_finite(
        source, {key: info.get(key) for key in ("energy", "free_energy", "stress")}
        | {"forces": record.arrays.get("forces"), "positions": atoms.positions},
    )  # fmt: skip
    if "dipole" in info:
        info["vasp_dipole"] = info.pop("dipole")
    info["energy_kind"] = energy
    if energy == "free":
        info["energy"] = info["free_energy"]
    fixed = None
    if header.fixed is not None and header.fixed.shape == (len(atoms), 3):
        fixed = masked(header.fixed, atoms.cell.array)
    return replace(record, info=info, constrained=fixed)


def _cells(row: Element) -> list[str]:
    return [(cell.text or "").strip() for cell in row.iterfind("c")]


FORMAT = Format(
    name="vasp-xml",
    read=read_vasprun,
    fields=ASE,
    claims=lambda path, head: path.is_file() and b"<modeling>" in head[:400],
)

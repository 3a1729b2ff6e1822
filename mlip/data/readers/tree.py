"""A tree of calculations: a folder in which each folder is one calculation of VASP, QE or CP2K."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlip.data.fields import ASE
from mlip.data.json_stream import DAMAGE, open_plain
from mlip.data.readers import cp2k, espresso, outcar, vasprun
from mlip.data.readers.dft import UNCONVERGED, UNFINISHED, require_choice
from mlip.data.readers.format import Format
from mlip.data.readers.magmoms_beside import with_magmoms
from mlip.data.record import Record
from mlip.errors import suggest

_LOG = logging.getLogger(__name__)
_VASP = (("vasprun.xml", vasprun.FORMAT), ("OUTCAR", outcar.FORMAT))
_PRINTED = (".out", ".pwo", ".log")
_TEXTS = (espresso.FORMAT, cp2k.FORMAT)
_HEAD = 65536
_PIECE = 1024
BROKEN = ("refuse", "skip")
_TOLD = 20  # broken calculations that a message names


def read_tree(
    path: Path,
    skip: Sequence[str] = (),
    energy: str = "sigma0",
    unconverged: str = "mark",
    unfinished: str = "refuse",
    charges: str | None = None,
    broken: str = "refuse",
) -> Iterator[Record]:
    """Yield the frames of every calculation in a folder, at any depth.

    Each folder that holds an output is one calculation, and its best file is read once:
    vasprun.xml before OUTCAR, else an output of pw.x or CP2K. Info: ``source_id`` and
    ``trajectory_id`` the folder relative to ``path``, ``frame_id`` the number of the ionic step,
    ``functional``, ``pseudopotentials`` and ``encut`` as far as the output tells them. Magnetic
    moments, which vasprun.xml lacks, are taken from the OUTCAR beside it.

    Args:
        path: The folder.
        skip: Folders of calculations, relative to ``path``, that are left out with all below them.
        energy: See :func:`mlip.data.readers.vasprun.read_vasprun`; VASP only.
        unconverged: ``mark`` or ``refuse`` electronic steps that did not converge.
        unfinished: ``refuse`` runs that did not finish, or ``keep`` their complete steps.
        charges: Partial charges; see the readers.
        broken: ``refuse`` the folder if a calculation cannot be read whole, or ``skip`` such
            calculations, which are named in a warning.

    Raises:
        ValueError: If calculations are damaged, a folder holds several outputs, or ``skip`` names
            what is not there. All of them are named, after the others were read.
    """
    require_choice(path, "energy", energy, vasprun.ENERGIES)
    require_choice(path, "unconverged", unconverged, UNCONVERGED)
    require_choice(path, "unfinished", unfinished, UNFINISHED)
    require_choice(path, "broken", broken, BROKEN)
    options = {"unconverged": unconverged, "unfinished": unfinished, "charges": charges}
    problems: dict[str, str] = {}
    for folder, name in _chosen(path, skip):
        try:
            records = _calculation(folder, name, options, energy)
            yield from (list(records) if broken == "skip" else records)  # whole or not at all
        except ValueError as error:
            problems[name] = str(error)
    if problems and broken == "skip":
        _LOG.warning("left out of %s: %s", path, _listed(problems))
    elif problems:
        raise ValueError(
            f"{path}: {len(problems)} of its calculations cannot be read: {_listed(problems)}\n"
            f"Leave them out with options='{{skip: [{', '.join(problems)}]}}', or all that cannot "
            "be read with options='{broken: skip}'"
        )


def _chosen(path: Path, skip: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Yield folder and name of each calculation that is not left out."""
    skipped = [skip] if isinstance(skip, str) else [str(name).strip("/") for name in skip]
    used: set[str] = set()
    calculations: list[str] = []
    for folder in _folders(path):
        name = folder.relative_to(path).as_posix()
        calculations.append(name)
        if left := {s for s in skipped if name == s or name.startswith(f"{s}/")}:
            used |= left
        else:
            yield folder, name
    if missing := sorted(set(skipped) - used):
        raise ValueError(
            f"{path}: skip names {missing[0]!r}, which is no calculation there"
            f"{suggest(missing[0], calculations)}"
        )


def _listed(problems: Mapping[str, str]) -> str:
    lines = [f"\n  {name}: {told}" for name, told in list(problems.items())[:_TOLD]]
    more = len(problems) - _TOLD
    return "".join(lines) + (f"\n  and {more} more" if more > 0 else "")


def outputs(folder: Path) -> list[tuple[Path, Format]]:
    """Return the outputs in a folder and their formats: one if there is a best one.

    Several are returned where none is better than the others: runs of VASP under other names
    (``OUTCAR.1``), or several outputs of pw.x or CP2K.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.stat().st_size)
    for name, found in _VASP:
        if best := [(file, found) for file in files if _bare(file.name) == name]:
            return best[:1]
    for name, found in _VASP:
        stem = name.removesuffix(".xml")
        if runs := [(file, found) for file in files if file.name.startswith(stem)]:
            return runs
    printed = [
        (file, found)
        for file in files
        if _bare(file.name).endswith(_PRINTED)
        for found in _TEXTS
        if found.claims(file, _head(file))
    ]
    # A run for bands or a density of states, in the folder of its first run, has no energy.
    return [x for x in printed if _tells_energy(x[0])] if len(printed) > 1 else printed


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders that hold an output, in order; hidden ones are no calculations.

    Links are followed, and each folder is visited once.
    """
    visited: set[Path] = set()
    for name, below, _ in os.walk(path, onerror=_raise, followlinks=True):
        real = Path(name).resolve()
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below[:] = sorted(folder for folder in below if not folder.startswith("."))
        if outputs(Path(name)):
            yield Path(name)


def _calculation(
    folder: Path, name: str, options: dict[str, str | None], energy: str
) -> Iterator[Record]:
    found = outputs(folder)
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {len(found)} outputs ({', '.join(f.name for f, _ in found[:3])}), and "
            "none is the best; give each a folder of its own"
        )
    file, file_format = found[0]
    is_vasp = file_format in (vasprun.FORMAT, outcar.FORMAT)
    records = file_format.read(file, **options, **({"energy": energy} if is_vasp else {}))
    if file_format is vasprun.FORMAT:
        records = with_magmoms(records, file)
    empty = True
    for record in records:
        empty = False
        yield replace(record, info={**record.info, "source_id": name, "trajectory_id": name})
    if empty:
        raise ValueError(f"{file} holds no ionic step; repeat the calculation")


def _raise(error: OSError) -> None:
    raise error


def _bare(name: str) -> str:
    return re.sub(r"\.(gz|bz2|xz)$", "", name)


def _tells_energy(path: Path) -> bool:
    try:
        with open_plain(path) as handle:
            return any(b"total energy  " in line or b"ENERGY| Total" in line for line in handle)
    except DAMAGE:
        return True  # what is damaged is told when it is read


def _head(path: Path) -> bytes:
    """Return how a file begins, without blanks; of a damaged one, what stands before the damage."""
    head = b""
    try:
        with open_plain(path) as handle:
            while len(head) < _HEAD and (piece := handle.read(_PIECE)):
                head += piece
    except DAMAGE:
        pass  # told when it is read
    return b"".join(head.split())


def _claims(path: Path, head: bytes) -> bool:
    return path.is_dir() and next(_folders(path), None) is not None


# Formats are asked in the order of their modules' names: those that know a folder by its own files
# (aselmdb, deepmd) come before this one, which looks below it.
FORMAT = Format(name="calculations", read=read_tree, fields=ASE, claims=_claims)

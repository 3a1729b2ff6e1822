"""Which format a file or folder is of, by its name and first bytes; pickles are refused here."""

import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ase.io.formats import filetype, ioformats

from mlip.data.fields import ASE, FieldMap
from mlip.data.json_stream import DAMAGE, open_plain
from mlip.data.readers.format import Format
from mlip.errors import suggest

_HERE = Path(__file__).parent
_XYZ = ("xyz", "extxyz")
_PICKLES = (".pkl", ".pickle", ".pckl", ".pt", ".pth", ".ckpt", ".joblib")
_ARRAYS = (".npy", ".npz")
_IN_EV = (  # ASE turns the results of these into eV, eV/Å and eV/Å³
    "traj", "db", "json", "aims-output", "castep", "castep-castep", "gaussian-out", "gpaw-out",
    "nwchem-out", "onetep-out", "orca-output", "siesta-xv", "turbomole-gradient", "vasp-xdatcar",
)  # fmt: skip
_UNSAFE = ("bundletrajectory", "postgresql", "mysql")
_KNOWN = (
    "name an .extxyz file or one that ASE reads (vasprun.xml, OUTCAR, .traj, .db, .cif, POSCAR)"
)
_HEAD = 65536
_OF_FOLDERS = ("calculations", "deepmd")
_FRAMES = tuple(
    f"{suffix}{packed}"
    for suffix in (".extxyz", ".xyz", ".traj", ".aselmdb", ".parquet")
    for packed in ("", ".gz", ".bz2", ".xz")
)
_PROSE = (".md", ".txt", ".rst", ".pdf")  # ASE takes .md for CASTEP


def format_of(path: Path) -> str:
    """Return the format of a file by ASE's names (``extxyz``, ``vasp-xml``, ``traj``, ...).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is empty, pickled, or of an unknown format.
    """
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path()
        near = suggest(path.name, (entry.name for entry in folder.iterdir() if entry.is_file()))
        raise FileNotFoundError(f"{path} does not exist{near if 'mean' in near else ''}")
    if path.is_file():
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty; fetch or write it again")
        _refuse_pickle(path)
    if (declared := _declared(path)) is not None:
        return declared
    if path.is_dir():
        raise ValueError(_unknown_folder(path))
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder; name one that is")
    found = _guess(path)
    return "extxyz" if found in _XYZ else found


def files_of(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files below a folder that are read, and the names of the others; hidden ones not.

    A folder that is itself of a format counts as one file.
    """
    found: list[Path] = []
    others: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in _PROSE:
            others.append(path.name)
            continue
        try:
            format_of(path)
            found.append(path)
        except ValueError:
            inner = files_of(path) if path.is_dir() else ([], [path.name])
            found += inner[0]
            others += inner[1]
    return found, others


def unread_files(folder: Path) -> list[str]:
    """Return the files of frames below a folder that is read as one input of another format.

    A folder of DFT runs, say, in which an extended XYZ file lies: it is not read with the runs.
    """
    if not folder.is_dir() or format_of(folder) not in _OF_FOLDERS:
        return []
    found = (file for file in folder.rglob("*") if file.name.endswith(_FRAMES) and file.is_file())
    return sorted(str(file.relative_to(folder)) for file in found)


@cache
def formats() -> dict[str, Format]:
    """Return every format that a module of this folder declares, by name."""
    names = (f"{__package__}.{found.name}" for found in pkgutil.iter_modules([str(_HERE)]))
    modules = [import_module(name) for name in names]
    declared = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {found.name: found for found in declared}


def default_fields(file_format: str) -> FieldMap | None:
    """Return the keys and units that a format fixes, None where they must be declared."""
    if file_format in formats():
        return formats()[file_format].fields
    return ASE if file_format in _IN_EV else None


def require_options(path: Path, file_format: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the reader of a format does not have.

    Raises:
        ValueError: Naming the first unknown one, with near matches.
    """
    known = _options(file_format)
    for option in options:
        if option not in known:
            raise ValueError(
                f"{path}: the reader of {file_format} has no option {option!r}"
                f"{suggest(option, known)}"
            )


def _unknown_folder(path: Path) -> str:
    if (path / "conversion.json").is_file():
        return (
            f"{path} is a training store of which the conversion did not end: run the same mlip "
            "data convert again, it goes on where it stopped"
        )
    held = sorted(entry.name for entry in path.iterdir())
    some = f"it holds {', '.join(held[:3])}{', ...' if len(held) > 3 else ''}" if held else "empty"
    return f"{path} is a folder in which no data is recognised ({some}); name one file in it"


def _declared(path: Path) -> str | None:
    """Return the declared format that claims the path, None if there is none."""
    head = b""
    if path.is_file():
        try:
            with open_plain(path) as handle:
                head = b"".join(handle.read(_HEAD).split())
        except DAMAGE:
            head = b""  # the reader that the name leads to tells what is damaged
    return next((found.name for found in formats().values() if found.claims(path, head)), None)


def _options(file_format: str) -> list[str]:
    if file_format not in formats():
        return []
    return list(inspect.signature(formats()[file_format].read).parameters)[1:]


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as handle:
        start = handle.read(2)
    # Protocols 2 to 5 start with the byte 0x80 and the protocol's number.
    if path.suffix.lower() in _PICKLES or (
        start[:1] == b"\x80" and start[1:] in b"\x02\x03\x04\x05"
    ):
        raise ValueError(
            f"{path} is a pickle, which runs code when read, and is "
            "never opened; convert it to extended XYZ where it was made"
        )
    if path.suffix.lower() in _ARRAYS:
        raise ValueError(
            f"{path} holds bare arrays, which do not say what they are; name the folder of a "
            "DeePMD system, or convert it to extended XYZ where it was made"
        )


def _guess(path: Path) -> str:
    try:
        found = filetype(str(path))
    except Exception as error:  # each of ASE's formats looks at the file in its own way
        raise ValueError(f"{path}: the format is not known ({error}); {_KNOWN}") from error
    if found == "tar" or path.name.endswith((".zip", ".tar.gz", ".tgz", ".tar.xz")):
        raise ValueError(f"{path} is a packed archive: unpack it, and name what is in it")
    if found not in ioformats or not ioformats[found].can_read:
        raise ValueError(f"{path}: the format {found!r} is not known; {_KNOWN}")
    if found.startswith("lammps"):
        raise ValueError(
            f"{path} is of LAMMPS ({found}), which does not say its elements and units: convert it "
            "to extended XYZ, for instance by ase.io.read(..., specorder=[...]) and ase.io.write"
        )
    if found in _UNSAFE:
        raise ValueError(f"{path}: the format {found} is not read; convert it to extended XYZ")
    return found

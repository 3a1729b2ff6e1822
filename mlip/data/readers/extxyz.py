"""Extended XYZ, streamed frame by frame and strict: nothing in a file is skipped silently."""

import re
from collections.abc import Iterator
from io import StringIO, TextIOWrapper
from lzma import LZMAError
from pathlib import Path
from typing import Any, TextIO
from zlib import error as ZlibError

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict, parse_properties
from ase.io.formats import open_with_compression

from mlip.data.readers.format import Format, Part
from mlip.data.record import Record
from mlip.errors import suggest

# One key=value of the comment line; quotes and brackets may hold spaces, a backslash escapes.
_TOKEN = re.compile(
    r"""(?:\\.|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\{(?:\\.|[^}\\])*\}|\[(?:\\.|[^]\\])*\]"""
    r"""|[^\s"'{}\[\]\\])+"""
)
_DEFAULT_PROPERTIES = "species:S:1:pos:R:3"
LONGEST = 2**25
"""Characters; a longer line is refused, so that a damaged file cannot fill the memory."""
_DAMAGE = (OSError, EOFError, LZMAError, ZlibError, UnicodeDecodeError)
_REPAIR = "the file is truncated or damaged: fetch or write it again"


def read_extxyz(path: Path) -> Iterator[Record]:
    """Yield the records of an (ext)xyz file, plain or compressed (gz, bz2, xz), one at a time.

    Keys keep their names: unlike ASE's reader nothing moves into a calculator, nine values under
    ``stress`` or ``virial`` become 3x3, six stay six, and text such as ``100_0.12`` stays text.

    Raises:
        ValueError: If a frame is incomplete or malformed, naming file, frame and line.
    """
    with TextIOWrapper(open_with_compression(str(path), "rb"), encoding="utf-8") as handle:
        yield from _records(_Lines(path, handle))


def _part(path: Path, text: str, index: int, number: int) -> Iterator[Record]:
    """Yield the records of a part: ``index`` frames and ``number`` lines come before it."""
    lines = _Lines(path, StringIO(text))
    lines.index, lines.number = index, number
    yield from _records(lines)


def _parts(path: Path, frames: int) -> Iterator[Part]:
    """Yield the parts of a file as text; what is wrong with a frame is left to its reader."""
    with open_with_compression(str(path), "rb") as binary:
        below: Any = getattr(binary, "fileobj", None) or getattr(binary, "_fp", None) or binary
        handle = TextIOWrapper(binary, encoding="utf-8", newline="\n")
        lines: list[str] = []
        first = line = before = count = 0
        try:
            while (header := handle.readline()) != "":
                lines.append(header)
                text = header.strip()
                if not text:
                    continue
                if not text.isascii() or not text.isdigit():
                    lines += handle.readlines(1)
                    break
                lines += _some_lines(handle, int(text) + 1)
                count += 1
                if count == frames:
                    size = _tell(below) - before
                    yield Part({"text": "".join(lines), "index": first, "number": line}, size)
                    first, line, before = first + count, line + len(lines), before + size
                    lines, count = [], 0
        except (*_DAMAGE, ValueError) as error:
            raise ValueError(
                f"{path}#{first + count} (line {line + len(lines)}): cannot be read ({error}); "
                f"{_REPAIR}"
            ) from error
        if "".join(lines).strip():
            where = {"text": "".join(lines), "index": first, "number": line}
            yield Part(where, _tell(below) - before)


def _some_lines(handle: TextIO, count: int) -> Iterator[str]:
    """Yield so many lines, fewer where the file ends; the reader tells what is missing."""
    for _ in range(count):
        if not (line := handle.readline()):
            return
        yield line


def _tell(file: Any) -> int:
    return int(file.tell()) if not getattr(file, "closed", False) else 0


def _records(lines: "_Lines") -> Iterator[Record]:
    while (header := lines.next_header()) is not None:
        yield _read_frame(lines, header)
        lines.index += 1


class _Lines:
    """The lines of a file, with the position that an error message needs."""

    def __init__(self, path: Path, handle: TextIO) -> None:
        self.path, self.handle = path, handle
        self.number, self.index = 0, 0

    @property
    def source(self) -> str:
        return f"{self.path}#{self.index}"

    def fail(self, what: str) -> ValueError:
        return ValueError(f"{self.source} (line {self.number}): {what}")

    def next(self) -> str | None:
        """Return the next line, None at the end of the file."""
        try:
            line = self.handle.readline(LONGEST)
        except _DAMAGE as error:
            self.number += 1
            raise self.fail(f"cannot be read ({error}); {_REPAIR}") from error
        if not line:
            return None
        self.number += 1
        if len(line) == LONGEST:
            raise self.fail(f"the line has {LONGEST} characters or more; {_REPAIR}")
        return line

    def next_header(self) -> int | None:
        """Return the number of atoms of the next frame, None after the last one."""
        line = self.next()
        while line is not None and not line.strip():
            line = self.next()
        if line is None:
            return None
        text = line.strip()
        if not text.isascii() or not text.isdigit() or int(text) == 0:
            raise self.fail(
                f"the number of atoms is expected, a whole number of at least 1, but "
                f"the line says {text[:60]!r}; {_REPAIR}"
            )
        return int(text)


def _read_frame(lines: _Lines, natoms: int) -> Record:
    comment = lines.next()
    if comment is None:
        raise lines.fail(f"the comment line of a frame of {natoms} atoms is missing; {_REPAIR}")
    info = _parse_comment(lines, comment.strip())
    columns = _parse_columns(lines, str(info.pop("Properties", _DEFAULT_PROPERTIES)))
    rows = _read_rows(lines, natoms, sum(count for _, _, count in columns))
    arrays = _parse_rows(lines, rows, columns)
    cell = info.pop("Lattice", None)
    atoms = Atoms(
        _numbers(lines, arrays),
        positions=_positions(lines, arrays),
        cell=cell.T if cell is not None else None,
        pbc=_pbc(lines, info.pop("pbc", cell is not None)),
    )
    return Record(atoms, info, arrays, lines.source, _constrained(arrays, natoms))


def _parse_comment(lines: _Lines, comment: str) -> dict[str, Any]:
    if "=" not in comment:
        return {"comment": comment} if comment else {}
    info: dict[str, Any] = {}
    for token in _tokens(lines, comment):
        key, value = _parse_token(lines, token)
        if key in info:
            raise lines.fail(f"the comment line gives {key!r} twice; keep one of them")
        info[key] = value
    return info


def _tokens(lines: _Lines, comment: str) -> list[str]:
    """Split a comment line into its ``key=value`` parts, spaces around ``=`` allowed."""
    comment = re.sub(r"\s+=\s*|=\s+", "=", comment) if re.search(r"\s=|=\s", comment) else comment
    if _TOKEN.sub("", comment).strip():
        raise lines.fail(f"the comment line has an unclosed quote or bracket; {_REPAIR}")
    return _TOKEN.findall(comment)


def _parse_token(lines: _Lines, token: str) -> tuple[str, Any]:
    key, equals, text = token.partition("=")
    bare = text.strip("\"'")
    if key.strip("\"'") in ("stress", "virial"):
        return key.strip("\"'"), _matrix(key_val_str_to_dict(f"value={text}")["value"])
    if equals and (not bare or (re.search(r"\d_\d", bare) and not bare.startswith("_JSON "))):
        return key, bare  # Python reads 100_0.12 as the number 1000.12
    try:
        parsed = key_val_str_to_dict(token)
    except ValueError as error:
        raise lines.fail(f"{key} cannot be read ({error}); {_REPAIR}") from error
    return next(iter(parsed.items()), (key, bare))


def _matrix(value: Any) -> Any:
    # Fortran order, as for the lattice; the matrix is symmetric unless the file is wrong.
    full = isinstance(value, np.ndarray) and value.shape == (9,)
    return value.reshape(3, 3, order="F") if full else value


def _parse_columns(lines: _Lines, text: str) -> list[tuple[str, str, int]]:
    """Return ASE name, type letter and number of columns of each property."""
    parts = text.split(":")
    try:
        if len(parts) % 3:
            raise ValueError("it is not a list of name:type:columns")
        if any(len(count) > 4 for count in parts[2::3]):  # ASE would count up to it
            raise ValueError("it names more than 9999 columns")
        properties, names, _, _ = parse_properties(text)
        if len(names) != len(properties):
            raise ValueError("it names a property twice")
    except ValueError as error:
        raise lines.fail(f"Properties={text} cannot be read ({error}); {_REPAIR}") from error
    return [
        (*properties[name][:1], kind, properties[name][1])
        for name, kind in zip(names, parts[1::3], strict=True)
    ]


def _read_rows(lines: _Lines, natoms: int, width: int) -> list[list[str]]:
    rows: list[list[str]] = []
    for row in range(natoms):
        line = lines.next()
        if line is None:
            raise lines.fail(f"the frame has {row} of its {natoms} atoms; {_REPAIR}")
        words = line.split()
        if len(words) != width:
            raise lines.fail(
                f"atom {row} has {len(words)} columns, but Properties and the number of atoms "
                f"({natoms}) ask for {width}: {line.strip()[:60]!r}; {_REPAIR}"
            )
        rows.append(words)
    return rows


def _parse_rows(
    lines: _Lines, rows: list[list[str]], columns: list[tuple[str, str, int]]
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for name, kind, count in columns:
        words = [row[start : start + count] for row in rows]
        start += count
        try:
            array = _typed(words, kind)
        except ValueError as error:
            first = lines.number - len(rows) + 1
            raise lines.fail(
                f"column {name!r} of the frame at lines {first} to {lines.number} is "
                f"not numeric ({error}); {_REPAIR}"
            ) from error
        arrays[name] = array[:, 0] if count == 1 else array
    return arrays


def _typed(words: list[list[str]], kind: str) -> np.ndarray:
    if kind == "S":
        return np.array(words)
    if kind == "L":
        table = np.array(words)
        true = np.isin(table, ("T", "True"))
        if not np.all(true | np.isin(table, ("F", "False"))):
            raise ValueError("logical values are T or F")
        return true
    return np.array(words, dtype=np.int64 if kind == "I" else np.float64)


def _numbers(lines: _Lines, arrays: dict[str, np.ndarray]) -> np.ndarray:
    symbols = arrays.pop("symbols", None)
    numbers = arrays.pop("numbers", None)
    named = None if symbols is None else _named(lines, symbols)
    if named is not None and numbers is not None and not np.array_equal(named, numbers):
        raise lines.fail("the species and Z columns disagree; keep one of them")
    found = numbers if named is None else named
    if found is None:
        raise lines.fail("there is neither a species nor a Z column; name one in Properties")
    for number in found[(found < 1) | (found > 118)]:
        raise lines.fail(f"atomic number {number} is not that of an element; correct it")
    return found


def _named(lines: _Lines, symbols: np.ndarray) -> np.ndarray:
    names = [str(symbol).capitalize() for symbol in symbols]
    for name in set(names) - set(atomic_numbers):
        raise lines.fail(f"{name!r} is not an element{suggest(name, atomic_numbers)}")
    return np.array([atomic_numbers[name] for name in names])


def _positions(lines: _Lines, arrays: dict[str, np.ndarray]) -> np.ndarray:
    positions = arrays.pop("positions", None)
    if positions is None or positions.shape[1:] != (3,):
        raise lines.fail("Properties names no pos:R:3, so there are no positions; add it")
    return positions


def _pbc(lines: _Lines, value: Any) -> list[bool]:
    flags = [value] * 3 if isinstance(value, bool) else list(np.atleast_1d(value))
    if len(flags) != 3 or not all(flag in (0, 1) for flag in flags):
        raise lines.fail(f'pbc is {value!r}; write it as pbc="T T F"')
    return [bool(flag) for flag in flags]


def _constrained(arrays: dict[str, np.ndarray], natoms: int) -> np.ndarray | None:
    mask = arrays.pop("move_mask", None)
    if mask is None or bool(np.all(mask)):
        return None
    free = mask.astype(bool).reshape(natoms, -1)
    return ~np.broadcast_to(free, (natoms, 3))


def _claims(path: Path, head: bytes) -> bool:
    plain = path.with_suffix("") if path.suffix in (".gz", ".bz2", ".xz") else path
    return path.is_file() and plain.suffix in (".xyz", ".extxyz")


FORMAT = Format("extxyz", read_extxyz, None, _claims, _parts, _part)

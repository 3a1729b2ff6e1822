"""Values of a JSON file of any size, one at a time, in bounded memory."""

import json
import re
from bz2 import BZ2File
from collections.abc import Callable, Iterator
from io import BytesIO
from lzma import LZMAError, LZMAFile
from pathlib import Path
from typing import IO, Any, cast
from zlib import error as ZlibError

import numpy as np
import orjson
from isal import igzip, isal_zlib

BLOCK = 1024 * 1024
"""Bytes read at a time."""
LARGEST = 512 * 1024**2
"""Bytes; a single value above it is refused, so that a damaged file cannot fill the memory."""
IGZIP_ERROR = cast(type[Exception], isal_zlib.error)
DAMAGE = (OSError, EOFError, LZMAError, ZlibError, IGZIP_ERROR)
"""What a truncated or damaged compressed file raises."""

Keys = tuple[str | int, ...]

_LONGEST = 16 * 1024**2  # bytes of a key or of a text outside of a record
_REPAIR = "the file is truncated or damaged: fetch or write it again"
_SPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\\x00-\x1f]|\\.)*")[ \t\r\n]*:[ \t\r\n]*')
_SCALAR = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+')
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_CLOSING = {b"{": b"}", b"[": b"]"}


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if its first bytes say gz, bz2 or xz."""
    with path.open("rb") as handle:
        start = handle.read(6)
    if start[:2] == b"\x1f\x8b":
        return cast(IO[bytes], igzip.open(path, "rb"))
    if start[:3] == b"BZh":
        return BZ2File(path)
    if start == b"\xfd7zXZ\x00":
        return LZMAFile(path)
    return path.open("rb")


def parse(text: bytes) -> Any:
    """Return a JSON value; NaN and Infinity, which Python writes, are accepted.

    Raises:
        ValueError: If the text is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
        return json.loads(text)


def stream(
    path: Path, depth: int, decode: Callable[[bytes], Any] = parse
) -> Iterator[tuple[Keys, Any]]:
    """Yield (keys, value) of the values nested ``depth`` containers deep, in the file's order.

    With depth 2 the file ``{"a": {"b": 1, "c": [2]}}`` gives ``(("a", "b"), 1)`` and
    ``(("a", "c"), [2])``. Keys of objects are text, those of arrays whole numbers. A value that
    is no container and stands less deep is given with its shorter path. An object must not hold
    a key twice in a row of one level; memory is bounded by the largest single value.

    Args:
        path: JSON file, plain or compressed (gz, bz2, xz).
        depth: Number of containers around each value; 0 for a file of several values (JSON lines),
            whose keys count them.
        decode: Makes a value of its text, and refuses with a ValueError what is not JSON.

    Raises:
        ValueError: If the file is not JSON, is truncated or damaged, naming the last key and byte.
    """
    with open_plain(path) as handle:
        yield from _values(_Reader(path, handle, decode), depth)


def stream_part(
    path: Path, text: bytes, start: int, depth: int, decode: Callable[[bytes], Any] = parse
) -> Iterator[tuple[Keys, Any]]:
    """Yield the values in some members of the object that a file holds, as :func:`stream` does.

    Args:
        path: The file, for messages.
        text: The members: the bytes from start to stop of a pair that :func:`cut` gives.
        start: Number of the first of these bytes.
        depth: As for :func:`stream`.
        decode: As for :func:`stream`.

    Raises:
        ValueError: As :func:`stream`.
    """
    reader = _Reader(path, BytesIO(b"{" + text + b"}"), decode)
    reader.offset = start - 1
    yield from _values(reader, depth)


def cut(path: Path, most: int, count: Callable[[bytes], int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) in bytes, decompressed, of groups of members of a file's object.

    Args:
        path: JSON file, plain or compressed.
        most: Largest sum of counts in a group; a member that has more is a group of its own.
        count: Says how much a member holds, and refuses with a ValueError what is not JSON.

    Raises:
        ValueError: As :func:`stream`.
    """
    with open_plain(path) as handle:
        reader = _Reader(path, handle, count)
        start = stop = held = 0
        for _, number in _values(reader, 1):
            if held and held + number > most:
                yield start, stop
                start, held = stop + 1, 0  # behind the comma
            elif not stop:
                start = reader.first
            stop = reader.offset + reader.position
            held += number
        if held:
            yield start, stop


class _Reader:
    """A window on the file that moves forward only."""

    def __init__(self, path: Path, handle: IO[bytes], decode: Callable[[bytes], Any]) -> None:
        self.path, self.handle, self.decode = path, handle, decode
        self.buffer, self.position, self.offset = b"", 0, 0
        self.keys: Keys = ()
        self.first = 0  # where the members of the outermost container begin
        self.index: dict[bytes, _Braces] = {}

    def fail(self, what: str) -> ValueError:
        keys = "#".join(str(key) for key in self.keys) or "start"
        byte = self.offset + self.position
        return ValueError(f"{self.path}#{keys} (byte {byte}): {what}; {_REPAIR}")

    def more(self) -> bool:
        """Read on, dropping what was used; False at the end of the file."""
        kept = self.buffer[self.position :]
        if len(kept) > LARGEST:
            raise self.fail(f"a single value has more than {LARGEST} bytes")
        try:
            block = self.handle.read(max(BLOCK, len(kept)))
        except DAMAGE as error:
            raise self.fail(f"it cannot be decompressed ({error})") from error
        self.offset += self.position
        self.buffer, self.position, self.index = kept + block, 0, {}
        return bool(block)

    def peek(self) -> bytes:
        """Return the next byte that is not white space, empty at the end of the file."""
        while True:
            match = _SPACE.match(self.buffer, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.buffer):
                return self.buffer[self.position : self.position + 1]
            if not self.more():
                return b""

    def key(self) -> str:
        while True:
            match = _KEY.match(self.buffer, self.position)
            if match is not None and match.end() < len(self.buffer):
                break
            if len(self.buffer) - self.position > _LONGEST or not self.more():
                raise self.fail("a key in quotes and a colon are expected")
        self.position = match.end()
        try:
            return str(orjson.loads(match[1]))
        except orjson.JSONDecodeError as error:
            raise self.fail(f"a key is not valid text ({error})") from error

    def value(self) -> Any:
        """Return the value at the position, and move behind it."""
        opening = self.peek()
        if opening not in _CLOSING:
            return self._scalar()
        while True:
            guess = self._guess(opening)
            if guess is not None:
                try:
                    return self._cut(guess)
                except ValueError:
                    if self._exact() == guess:
                        raise
            if (end := self._exact()) is not None:
                return self._cut(end)
            if not self.more():
                raise self.fail("the file ends within this value")

    def _cut(self, end: int) -> Any:
        try:
            found = self.decode(self.buffer[self.position : end])
        except (ValueError, RuntimeError) as error:
            raise self.fail(f"the value is not JSON ({error})") from error
        self.position = end
        return found

    def _scalar(self) -> Any:
        while True:
            match = _SCALAR.match(self.buffer, self.position)
            if match is not None and match.end() < len(self.buffer):
                return self._cut(match.end())
            if len(self.buffer) - self.position > _LONGEST or not self.more():
                raise self.fail("a value is expected")

    def _guess(self, opening: bytes) -> int | None:
        """Return the end of a container if no string holds braces; ``parse`` is the judge.

        A slice that ends too early ends within a string, one that ends too late holds more than
        one value: both are refused by the parser, so a wrong guess is never taken.
        """
        if opening not in self.index:
            self.index[opening] = _Braces(self.buffer, opening)
        return self.index[opening].end(self.position)

    def _exact(self) -> int | None:
        """Return the end of a container, strings respected; None when the buffer ends first."""
        depth = 0
        for match in _TOKEN.finditer(self.buffer, self.position):
            token = match[0]
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                if depth == 0:
                    return match.end()
        return None


class _Braces:
    """Depth of nesting at every brace of a buffer, found in a few passes of compiled code."""

    def __init__(self, buffer: bytes, opening: bytes) -> None:
        text = np.frombuffer(buffer, dtype=np.uint8)
        self.places = np.flatnonzero((text == opening[0]) | (text == _CLOSING[opening][0]))
        steps = np.where(text[self.places] == opening[0], 1, -1)
        self.depth = np.cumsum(steps, dtype=np.int64)
        self.ends: dict[int, np.ndarray] = {}

    def end(self, position: int) -> int | None:
        """Return the place behind the brace that closes the one at ``position``."""
        outside = int(self.depth[self.places.searchsorted(position)]) - 1
        if outside not in self.ends:
            self.ends[outside] = self.places[self.depth == outside]
        ends = self.ends[outside]
        found = ends.searchsorted(position)
        return int(ends[found]) + 1 if found < len(ends) else None


def _values(reader: _Reader, depth: int) -> Iterator[tuple[Keys, Any]]:
    if depth == 0:
        yield from _lines(reader)
        return
    if reader.peek() not in _CLOSING:
        raise reader.fail("the file does not begin with { or [")
    reader.first = reader.offset + reader.position + 1
    yield from _members(reader, (), depth)
    if reader.peek():
        raise reader.fail("there is something after the end of the JSON value")


def _lines(reader: _Reader) -> Iterator[tuple[Keys, Any]]:
    number = 0
    while reader.peek():
        reader.keys = (number,)
        yield (number,), reader.value()
        number += 1


def _members(reader: _Reader, keys: Keys, depth: int) -> Iterator[tuple[Keys, Any]]:
    """Yield the members of the container at the position, down to ``depth``."""
    opening = reader.peek()
    closing = _CLOSING[opening]
    reader.position += 1
    number = 0
    separator = reader.peek()
    while separator != closing or number:
        reader.keys = keys
        key: str | int = number
        if opening == b"{":
            key = reader.key()
        reader.keys = path = (*keys, key)
        if depth > 1 and reader.peek() in _CLOSING:
            yield from _members(reader, path, depth - 1)
        else:
            yield path, reader.value()
        number += 1
        separator = reader.peek()
        if separator not in (b",", closing):
            raise reader.fail(f"a comma or {closing.decode()} is expected after this value")
        reader.position += 1
        if separator == closing:
            return
        reader.peek()
    reader.position += 1

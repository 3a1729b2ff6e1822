"""Pages of an LMDB file, checked before LMDB maps them: it trusts a file, and dies of a bad one."""

import mmap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from struct import Struct
from struct import error as StructError

_MAGIC = 0xBEEFC0DE
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_BIG = 1
_HEADER = Struct("<QHHHH")  # page number, pad, flags, lower, upper
_NODE = Struct("<HHHH")  # size or page number (two parts), flags, size of the key
_META = Struct("<IIQQ")  # magic, version, address, size of the map
_TREE = Struct("<IHHQQQQQ")  # pad (of the first: page size), flags, depth, 3 counts, entries, root
_LAST = Struct("<QQ")  # last page, transaction
_PAGE = Struct("<Q")
_NONE = 2**64 - 1
_DEEPEST = 32


def check_pages(path: Path) -> None:
    """Walk the tree of an LMDB file without LMDB.

    The layout is that of LMDB 0.9 on little-endian 64-bit machines (``mdb.c``, MDB_page, MDB_node,
    MDB_meta, MDB_db).

    Raises:
        ValueError: If the file is shorter than it says, or a page or a node leaves its bounds.
    """
    state = path.stat()
    problem = _problem(path, state.st_size, state.st_mtime_ns)
    if problem:
        raise ValueError(f"{path} is not a whole LMDB file ({problem}): fetch it again")


@lru_cache(maxsize=256)
def _problem(path: Path, size: int, _: int) -> str:
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            page_size, last, root, depth = _meta(data)
            if (last + 1) * page_size > size:
                raise ValueError(f"it has {size} bytes, but {(last + 1) * page_size} are needed")
            if root != _NONE:
                _walk(data, page_size, last, root, depth)
        except (StructError, ValueError) as error:
            return str(error)
    return ""


def _meta(data: mmap.mmap) -> tuple[int, int, int, int]:
    """Return page size, last page, root and depth of the newer of the two meta pages."""
    found = []
    page_size = 0
    for number in (0, 1):
        start = number * page_size + _HEADER.size
        magic, _, _, _ = _META.unpack_from(data, start)
        if magic != _MAGIC:
            raise ValueError("it does not begin as one")
        start += _META.size
        pad, *_ = _TREE.unpack_from(data, start)
        if number == 0:
            page_size = pad
            if page_size not in (512 << shift for shift in range(8)):
                raise ValueError(f"its page size is {page_size}")
        elif pad != page_size:
            raise ValueError("its two heads disagree")
        _, _, depth, *_, root = _TREE.unpack_from(data, start + _TREE.size)
        last, transaction = _LAST.unpack_from(data, start + 2 * _TREE.size)
        found.append((transaction, last, root, depth))
    _, last, root, depth = max(found, key=lambda meta: meta[0])
    return page_size, last, root, depth


def _walk(data: mmap.mmap, page_size: int, last: int, root: int, depth: int) -> None:
    seen: set[int] = set()
    waiting = [(root, 1)]
    while waiting:
        page, level = waiting.pop()
        if not 2 <= page <= last or page in seen or level > min(depth, _DEEPEST):
            raise ValueError(f"page {page} is not where one can be")
        seen.add(page)
        leaf = level == depth
        for start, end in _nodes(data, page_size, page, leaf):
            if leaf:
                _check_value(data, page_size, last, start, end)
            else:
                low, high, kind, _ = _NODE.unpack_from(data, start)
                waiting.append((low | high << 16 | kind << 32, level + 1))


def _nodes(data: mmap.mmap, page_size: int, page: int, leaf: bool) -> Iterator[tuple[int, int]]:
    """Yield where each node of a page begins, and where the page ends; keys are within it."""
    start = page * page_size
    number, _, flags, lower, upper = _HEADER.unpack_from(data, start)
    if number != page or flags & 0x0F != (_LEAF if leaf else _BRANCH):
        raise ValueError(f"page {page} is of another kind")
    fewest = _HEADER.size if leaf else _HEADER.size + 4
    if not fewest <= lower <= upper <= page_size or lower % 2:
        raise ValueError(f"page {page} is fuller or emptier than it can be")
    offsets = Struct(f"<{(lower - _HEADER.size) // 2}H").unpack_from(data, start + _HEADER.size)
    for offset in offsets:
        if not upper <= offset <= page_size - _NODE.size:
            raise ValueError(f"a node of page {page} is outside of it")
        key = _NODE.unpack_from(data, start + offset)[3]
        if offset + _NODE.size + key > page_size:
            raise ValueError(f"a key of page {page} is outside of it")
        yield start + offset, start + page_size


def _check_value(data: mmap.mmap, page_size: int, last: int, start: int, end: int) -> None:
    low, high, kind, key = _NODE.unpack_from(data, start)
    content, length = start + _NODE.size + key, low | high << 16
    if kind not in (0, _BIG) or content + (_PAGE.size if kind else length) > end:
        raise ValueError(f"a value of page {start // page_size} is outside of it")
    if kind:
        _overflow(data, page_size, last, _PAGE.unpack_from(data, content)[0], length)


def _overflow(data: mmap.mmap, page_size: int, last: int, page: int, length: int) -> None:
    pages = -(-(length + _HEADER.size) // page_size)
    if not 2 <= page <= last or page + pages - 1 > last:
        raise ValueError(f"the value on page {page} leaves the file")
    number, _, flags, *_ = _HEADER.unpack_from(data, page * page_size)
    if number != page or not flags & _OVERFLOW:
        raise ValueError(f"page {page} is not that of a large value")

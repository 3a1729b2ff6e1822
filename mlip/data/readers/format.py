"""What a reader module declares: a name, how to recognise its files, and the units they are in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlip.data.fields import FieldMap
from mlip.data.record import Record


@dataclass(frozen=True)
class Part:
    """A piece of a file or folder that any process can read, in any order.

    Args:
        where: Keyword arguments of ``Format.read_part``; they travel to other processes.
        size: Bytes of the input that it takes, for a progress bar.
    """

    where: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True)
class Format:
    """One file format; a module of this folder that has a ``FORMAT`` is found by itself.

    Args:
        name: What ``format_of`` says.
        read: Yields the records of a path; further keyword arguments are the reader's options.
        fields: Keys and units of the labels where the format fixes them; None where the user must
            declare them.
        claims: Tells from the path and the first bytes (decompressed, white space taken out; empty
            for a folder) whether the format is this one.
        parts: Cuts a path into pieces of at most so many frames, where the file allows it: read in
            order, they give the records that ``read`` gives. None reads the whole only.
        read_part: Yields the records of a piece: ``read_part(path, **part.where, **options)``.
    """

    name: str
    read: Callable[..., Iterator[Record]]
    fields: FieldMap | None
    claims: Callable[[Path, bytes], bool]
    parts: Callable[[Path, int], Iterator[Part]] | None = None
    read_part: Callable[..., Iterator[Record]] | None = None

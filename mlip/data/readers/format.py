"""What a reader module declares: a name, how to recognise its files, and the units they are in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlip.data.fields import FieldMap
from mlip.data.record import Record


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
    """

    name: str
    read: Callable[..., Iterator[Record]]
    fields: FieldMap | None
    claims: Callable[[Path, bytes], bool]

"""What a data card declares under ``remote``: files elsewhere, by URL, hub or project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mlip.errors import suggest

_ROUNDING = 0.1


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set that is not in the repository; ``url``, ``hub`` or ``mpcontribs``.

    Args:
        url: Where it is.
        hub: Data set of the hub, ``owner/name``.
        mpcontribs: Project of MPContribs.
        path: Name of the file; of a file on the hub, its path there.
        subset: Part of the data set, as published, by which it is chosen.
        split: Split that it holds, as published.
        size: Bytes, rounded as published; None where not stated.
        frames: Number of frames; None where not stated.
        md5: Checksum, where one is published.
        sha256: Checksum, where one is published; it is used if both are.
        format: Reader of the file, or of what is in the archive.
        manual: Why no program can fetch it and what to do; empty when one can.
    """

    url: str = ""
    hub: str = ""
    mpcontribs: str = ""
    path: str = ""
    subset: str = ""
    split: str = ""
    size: int | None = None
    frames: int | None = None
    md5: str = ""
    sha256: str = ""
    format: str = ""
    manual: str = ""

    @property
    def filename(self) -> str:
        """Local path: ``subset/split/name``, as files of different parts share their names."""
        url = unquote(urlsplit(self.url).path)
        named = self.path or PurePosixPath(url).name or f"{self.mpcontribs or 'file'}.json"
        name = PurePosixPath(named).name
        return "/".join(part for part in (self.subset, self.split, name) if part)

    @property
    def checksum(self) -> str | None:
        """``sha256:…`` or ``md5:…``; None if the card gives neither."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        return f"md5:{self.md5}" if self.md5 else None

    @property
    def source(self) -> str:
        """Where it is from, for a person."""
        return self.url or (f"{self.hub}/{self.path}" if self.hub else self.mpcontribs)

    def has_size(self, found: int) -> bool:
        """Whether a number of bytes agrees with the card, whose size may be rounded."""
        return self.size is None or abs(found - self.size) <= _ROUNDING * self.size


def remote_files(entries: Sequence[Mapping[str, Any]]) -> tuple[RemoteFile, ...]:
    """Return the entries of a card's ``remote``, which the schema has validated."""
    return tuple(RemoteFile(**entry) for entry in entries)


def choose(
    files: Sequence[RemoteFile], subsets: Sequence[str], splits: Sequence[str], name: str
) -> list[RemoteFile]:
    """Return the files of the subsets and splits asked for; all splits if none is asked for.

    Raises:
        ValueError: If there is no such subset or split, or several subsets and none is named.
    """
    _require_known("subset", subsets, [file.subset for file in files], name)
    _require_known("split", splits, [file.split for file in files], name)
    known = list(dict.fromkeys(file.subset for file in files))
    if not subsets and len(known) > 1:
        told = ", ".join(f"{subset}{_size(files, subset)}" for subset in known)
        raise ValueError(f"say subset=NAME[,NAME] of {name}; there are {told}")
    chosen = [file for file in files if not subsets or file.subset in subsets]
    chosen = [file for file in chosen if not splits or file.split in splits]
    if not chosen:
        raise ValueError(f"{name}: no file of subset {subsets} has the split {', '.join(splits)}")
    return chosen


def _require_known(what: str, asked: Sequence[str], known: Sequence[str], name: str) -> None:
    for one in asked:
        if one not in known:
            raise ValueError(f"data set {name!r} has no {what} {one!r}{suggest(one, known)}")


def _size(files: Sequence[RemoteFile], subset: str) -> str:
    sizes = [file.size for file in files if file.subset == subset]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return ""
    return f" ({size_text(sum(known))})"


def size_text(size: int) -> str:
    """Return a number of bytes for a person."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

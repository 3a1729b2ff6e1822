"""What a data card declares under ``remote``: files elsewhere, by URL, hub or project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mlip.errors import suggest


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set that is not in the repository.

    Args:
        subset: Name by which it is chosen.
        url: Where it is; else ``hub`` or ``mpcontribs``.
        hub: Data set of the hub, ``owner/name``.
        path: File in the data set of the hub.
        mpcontribs: Project of MPContribs.
        md5: Checksum, hexadecimal.
        sha256: Checksum, hexadecimal; it is used if both are given.
        bytes: Size.
    """

    subset: str
    url: str = ""
    hub: str = ""
    path: str = ""
    mpcontribs: str = ""
    md5: str = ""
    sha256: str = ""
    bytes: int | None = None

    @property
    def filename(self) -> str:
        """Local name: the last part of the URL or path."""
        if self.mpcontribs:
            return f"{self.mpcontribs}.json"
        name = PurePosixPath(unquote(urlsplit(self.url).path) if self.url else self.path).name
        # Files of different subsets share names such as train.tar.gz.
        return f"{self.subset.replace('/', '_')}-{name or 'file'}"

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


def remote_files(entries: Sequence[Mapping[str, Any]]) -> tuple[RemoteFile, ...]:
    """Return the entries of a card's ``remote``, which the schema has validated."""
    return tuple(RemoteFile(**entry) for entry in entries)


def choose(files: Sequence[RemoteFile], subsets: Sequence[str], name: str) -> list[RemoteFile]:
    """Return the files of the subsets asked for; all if none is asked for and there is one.

    Raises:
        ValueError: If a subset does not exist, or several do and none is named.
    """
    known = list(dict.fromkeys(file.subset for file in files))
    for subset in subsets:
        if subset not in known:
            raise ValueError(f"data set {name!r} has no subset {subset!r}{suggest(subset, known)}")
    if not subsets and len(known) > 1:
        told = ", ".join(f"{subset}{_size(files, subset)}" for subset in known)
        raise ValueError(f"say subset=NAME[,NAME] of {name}; there are {told}")
    return [file for file in files if not subsets or file.subset in subsets]


def _size(files: Sequence[RemoteFile], subset: str) -> str:
    sizes = [file.bytes for file in files if file.subset == subset]
    known = [size for size in sizes if size is not None]
    return f" ({sum(known) / 1e6:.0f} MB)" if known and len(known) == len(sizes) else ""

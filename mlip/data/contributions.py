"""Projects of MPContribs, fetched page by page with mpcontribs-client."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mlip.data.download import DownloadError, require_package
from mlip.data.remote import RemoteFile

KEY_VARIABLE = "MPCONTRIBS_API_KEY"
PAGE = 100
"""Contributions of one page; what a kill can lose."""
_MOST_ELEMENTS = 6  # 63 chemical systems; more do not fit into a request

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Narrowing:
    """What the server is asked for instead of everything.

    Args:
        elements: Contributions that hold no other element; empty for all.
        limit: Number of contributions at most, the first by id; None for all.
    """

    elements: Sequence[str] = ()
    limit: int | None = None

    @property
    def suffix(self) -> str:
        """What sets the file of a narrowed pull apart from that of a whole one."""
        told = ["-".join(sorted(self.elements))] if self.elements else []
        return "".join(f"_{part}" for part in [*told, *([f"first{self.limit}"] * bool(self.limit))])


def download_contributions(
    file: RemoteFile, folder: Path, narrowing: Narrowing, progress: Progress | None = None
) -> Path:
    """Fetch the contributions of a project with their structures, into one JSON list.

    Pages that are there are not fetched again: after a kill or an error the same call goes on. The
    file appears when it is whole.

    Args:
        file: Entry of a card's ``remote``.
        folder: Where it goes.
        narrowing: What to ask the server for.
        progress: Told how many contributions are there, and how many there will be.

    Raises:
        DownloadError: If there is no API key, nothing matches, or the server fails.
        ModuleNotFoundError: If the client is not installed, with the command for it.
    """
    whole = folder / file.filename
    target = whole.with_name(f"{whole.stem}{narrowing.suffix}{whole.suffix}")
    if target.exists():
        return target
    pages = target.with_name(f"{target.name}.pages")
    pages.mkdir(parents=True, exist_ok=True)
    with _told(file, pages):
        client = _client(file, target)
        chunks = list(_chunks(_ids(client, file.mpcontribs, narrowing)))
        total, done = sum(map(len, chunks)), 0
        names = [pages / f"{chunk[0]}-{chunk[-1]}-{len(chunk)}.json" for chunk in chunks]
        for name, chunk in zip(names, chunks, strict=True):
            if not name.exists():
                _write(name, _page(client, chunk, pages))
            done += len(chunk)
            if progress:
                progress(done, total)
    _join(names, target)
    return target


class _told:
    """Turn whatever the client raises into one sentence with a remedy."""

    def __init__(self, file: RemoteFile, pages: Path) -> None:
        self.file, self.pages = file, pages

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, DownloadError | ImportError):
            count = len(list(self.pages.glob("*.json")))
            reason = str(error).splitlines()[0] if str(error) else ""
            raise DownloadError(
                f"the project {self.file.mpcontribs} of MPContribs cannot be fetched "
                f"({type(error).__name__}: {reason}). {count} pages are kept in {self.pages}: pull "
                "again to go on"
            ) from error


def _client(file: RemoteFile, target: Path) -> Any:
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise DownloadError(
            f"the project {file.mpcontribs} of MPContribs needs an API key: take yours from "
            f"https://materialsproject.org/api, export {KEY_VARIABLE}=... and pull again. "
            f"Without a key or a network: have somebody else pull, and put the file at {target}"
        )
    os.environ.setdefault("MPCONTRIBS_CLIENT_LOG_LEVEL", "ERROR")
    package = require_package("mpcontribs.client", "mpcontribs-client")
    return package.Client(apikey=key, project=file.mpcontribs)


def _ids(client: Any, project: str, narrowing: Narrowing) -> list[str]:
    query: dict[str, Any] = {"project": project}
    column = "data__chemsys__in"
    systems = _chemical_systems(narrowing.elements)
    if systems and column in client.available_query_params():
        query[column] = systems
    found = client.get_all_ids(query)
    ids = sorted(found.get(project, {}).get("ids", ()))
    if not ids:
        raise DownloadError(
            f"the project {project} of MPContribs has no contribution of "
            f"{', '.join(narrowing.elements) or 'any kind'}: widen elements="
        )
    return ids[: narrowing.limit]


def _chemical_systems(elements: Sequence[str]) -> list[str]:
    """Return every system of these elements, as the project writes them; none if too many."""
    if len(set(elements)) > _MOST_ELEMENTS:
        return []
    symbols = sorted(set(elements))
    sizes = range(1, len(symbols) + 1)
    return ["-".join(chosen) for size in sizes for chosen in combinations(symbols, size)]


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


def _page(client: Any, ids: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Return contributions with their structures whole, in the order of the ids."""
    query = {"id__in": list(ids)}
    raw = folder / "raw"
    found = client.download_contributions(query, outdir=raw, overwrite=True, include=["structures"])
    by_id = {entry["id"]: dict(entry) for entry in found}
    if missing := [one for one in ids if one not in by_id]:
        raise DownloadError(
            f"{len(missing)} of {len(ids)} contributions did not arrive (first {missing[0]}); the "
            f"pages before are kept in {folder}: pull again to go on"
        )
    for entry in by_id.values():
        entry["structures"] = [one.as_dict() for one in entry.get("structures", ())]
    for leftover in sorted(raw.rglob("*"), reverse=True):
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    return [by_id[one] for one in ids]


def _write(path: Path, entries: Sequence[Any]) -> None:
    draft = path.with_name(f".{path.name}.part")
    with draft.open("w", encoding="utf-8") as file:
        file.write(",\n".join(json.dumps(entry, default=str) for entry in entries))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _join(pages: Sequence[Path], target: Path) -> None:
    draft = target.with_name(f".{target.name}.part")
    with draft.open("w", encoding="utf-8") as file:
        file.write("[\n")
        for number, page in enumerate(pages):
            file.write(",\n" if number else "")
            file.write(page.read_text(encoding="utf-8"))
        file.write("\n]\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    folder = pages[0].parent
    for leftover in sorted(folder.rglob("*"), reverse=True):
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    folder.rmdir()

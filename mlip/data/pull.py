"""The pull verb: fetch what a data card declares, unpack it, and choose frames of it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from mlip.data import archive
from mlip.data.card import DataCard, load_card
from mlip.data.download import DownloadError, download, require_package
from mlip.data.fields import FieldMap
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.remote import RemoteFile, choose
from mlip.data.select import Selection, select
from mlip.data.write_extxyz import to_extxyz

FOLDER_VARIABLE = "MLIP_DATA"
_NOT_DATA = (".npz", ".lock", ".md", ".txt", ".json.part")


@dataclass(frozen=True)
class Pulled:
    """What a pull brought.

    Args:
        files: Files fetched, or unpacked from what was fetched, by their subset.
        notes: What to know about them: a file without a checksum on its card.
    """

    files: dict[str, list[Path]]
    notes: list[str]


def pull(
    name: str | Path,
    subsets: Sequence[str] = (),
    folder: str | Path | None = None,
    *,
    splits: Sequence[str] = (),
    timeout_s: float = 60.0,
    attempts: int = 5,
    progress: bool = True,
) -> Pulled:
    """Fetch the subsets of a data set; what is there already is checked, not fetched.

    Args:
        name: Name of a data set, or the path of a card.
        subsets: Subsets of the card's ``remote``; empty if there is one.
        folder: Where files go; None is ``$MLIP_DATA/<name>``, else ``~/.cache/mlip/<name>``.
        splits: Published splits; empty for all.
        timeout_s: Longest silence of a server, s.
        attempts: Tries in a row that bring nothing before it gives up.
        progress: Show a bar.

    Raises:
        ValueError: If the card declares nothing to fetch or not this subset; if a file cannot be
            fetched or is not the one of the card; if an archive is damaged or hostile.
        ModuleNotFoundError: If the client is not installed, with the command for it.
    """
    card = load_card(name)
    if not card.remote:
        held = ", ".join(card.files)
        raise ValueError(
            f"data set {card.name!r} has nothing to pull: its frames are in the repository ({held})"
        )
    target = Path(folder) if folder is not None else default_folder() / card.name
    files: dict[str, list[Path]] = {}
    notes = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), disable=not progress) as bar:
        for file in choose(card.remote, subsets, splits, card.name):
            task = bar.add_task(file.filename, total=file.size)
            path = _fetch(
                file,
                target,
                timeout_s,
                attempts,
                lambda done, total, task=task: bar.update(task, completed=done, total=total),
            )
            if file.checksum is None:
                notes.append(f"{path} has no checksum on the card of {card.name}: not verified")
            files.setdefault(file.subset, []).extend(_unpacked(path))
    return Pulled(files, notes)


def default_folder() -> Path:
    """Return ``$MLIP_DATA``, else ``~/.cache/mlip``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "mlip")


def frames_of(card: DataCard | str | Path, pulled: Pulled) -> Iterator[Frame]:
    """Yield the frames of everything that was pulled, in internal units."""
    fields = (card if isinstance(card, DataCard) else load_card(card)).fields
    paths = [path for files in pulled.files.values() for path in files]
    return chain.from_iterable(_read(path, fields) for path in paths)


def write_selection(frames: Iterable[Frame], selection: Selection, output: str | Path) -> int:
    """Write the frames chosen as extended XYZ (``units=ase``), whole or not at all.

    Returns:
        How many there are.

    Raises:
        ValueError: If the output exists, or no frame passes.
    """
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists: remove it, or name another output")
    chosen = select(frames, selection)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(to_extxyz(frame) for frame in chosen)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(output)
    return len(chosen)


def _fetch(file: RemoteFile, folder: Path, timeout_s: float, attempts: int, told: object) -> Path:
    if file.manual:
        return _brought(file, folder / file.filename)
    if file.url:
        return download(
            file,
            folder,
            timeout_s=timeout_s,
            attempts=attempts,
            progress=told,  # type: ignore[arg-type]
        )
    if file.hub:
        return _from_hub(file, folder)
    raise ValueError(
        f"subset {file.subset!r} is the project {file.mpcontribs} of MPContribs, which needs an "
        f"API key: save it with mpcontribs-client at {folder / file.filename}"
    )


def _brought(file: RemoteFile, path: Path) -> Path:
    if not path.exists():
        raise DownloadError(
            f"{file.source} cannot be fetched by a program: {file.manual}. Put what it gives at "
            f"{path}, and pull again"
        )
    return path


def _from_hub(file: RemoteFile, folder: Path) -> Path:
    """Fetch by huggingface_hub, which resumes by itself; then test the card's checksum."""
    hub = require_package("huggingface_hub", "huggingface_hub")
    try:
        (folder / file.filename).parent.mkdir(parents=True, exist_ok=True)
        found = hub.hf_hub_download(file.hub, file.path, repo_type="dataset", local_dir=folder)
    except Exception as error:  # the client raises many classes, of httpx among them
        raise DownloadError(
            f"{file.source} cannot be fetched from the hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}). Pull again to go on. If the set "
            "asks for consent, log in with its client first. Without a network: fetch it elsewhere "
            f"and put it at {folder / file.path}"
        ) from error
    path = Path(found)
    if not file.has_size(path.stat().st_size):
        path.unlink()
        raise DownloadError(f"{file.source} is not of the size on the card: pull again")
    if file.checksum is not None:
        algorithm, _, known = file.checksum.partition(":")
        digest = require_package("pooch", "pooch").file_hash(str(path), alg=algorithm)
        if digest != known:
            path.unlink()
            raise DownloadError(
                f"{file.source} has {algorithm} {digest}, but the card says {known}: it was "
                "removed; pull again, and correct the card if the set was changed"
            )
    return path


def _unpacked(path: Path) -> list[Path]:
    if not archive.is_archive(path):
        return [path]
    stem = path.name
    for suffix in archive.SUFFIXES:
        stem = stem.removesuffix(suffix)
    return [
        member
        for member in archive.unpack(path, path.with_name(stem))
        if not member.name.endswith(_NOT_DATA)
    ]


def _read(path: Path, fields: FieldMap) -> Iterator[Frame]:
    yield from read(path, fields)

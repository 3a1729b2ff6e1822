"""The pull verb: fetch what a data card declares, unpack it, and choose frames of it."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)

from mlip.data import archive
from mlip.data.card import DataCard, load_card
from mlip.data.contributions import Narrowing, download_contributions
from mlip.data.download import DownloadError, download, require_package
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.readers.recognize import format_of, formats
from mlip.data.remote import RemoteFile, choose
from mlip.data.select import Selection, select, stream
from mlip.data.write_extxyz import to_extxyz

FOLDER_VARIABLE = "MLIP_DATA"
_NOT_DATA = (".npz", ".lock", ".md", ".txt", ".json.part", "-lock")


@dataclass(frozen=True)
class Pulled:
    """What a pull brought.

    Args:
        files: Files fetched, or files and folders unpacked from what was fetched, by their subset.
        notes: What to know about them: a file without a checksum on its card.
        formats: Format of each path, where the card states it.
        splits: Published splits that the files are of.
    """

    files: dict[str, list[Path]]
    notes: list[str]
    formats: dict[Path, str] = field(default_factory=dict)
    splits: set[str] = field(default_factory=set)


def pull(
    name: str | Path,
    subsets: Sequence[str] = (),
    folder: str | Path | None = None,
    *,
    splits: Sequence[str] = (),
    narrowing: Narrowing | None = None,
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
        narrowing: What to ask of a source that can be asked (MPContribs); files come whole.
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
    found = Pulled({}, [], {})
    for file in choose(card.remote, subsets, splits, card.name):
        with _Bar(file, progress) as told:
            path = _fetch(file, target, narrowing or Narrowing(), timeout_s, attempts, told)
        if file.checksum is None and not file.mpcontribs:
            found.notes.append(f"{path} has no checksum on the card of {card.name}: not verified")
        pieces = _pieces(path, file.format)
        found.files.setdefault(file.subset, []).extend(pieces)
        found.splits.update({file.split} - {""})
        if file.format:
            found.formats.update(dict.fromkeys(pieces, file.format))
    return found


def default_folder() -> Path:
    """Return ``$MLIP_DATA``, else ``~/.cache/mlip``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "mlip")


def frames_of(
    card: DataCard | str | Path,
    pulled: Pulled,
    options: Mapping[str, Any] | None = None,
    units: str | Mapping[str, Any] | None = None,
) -> Iterator[Frame]:
    """Yield the frames of everything that was pulled, in internal units.

    Each file is read in the format on the card, with the keys and units which that format fixes;
    the card's ``fields`` are for formats that fix none (extended XYZ). ``info`` tells the data set
    and its functional where the file does not.

    Args:
        card: The card by which it was pulled.
        pulled: What the pull brought.
        options: Options of the reader, ``energy: corrected`` of MPtrj for instance.
        units: Field map instead of that of format or card, for labels under other keys.

    Raises:
        ValueError: If files of several published splits would be mixed.
    """
    if len(pulled.splits) > 1:
        raise ValueError(
            f"these files are the published splits {', '.join(sorted(pulled.splits))}: choose "
            f"frames of one at a time, split={min(pulled.splits)}, each into an output of its own"
        )
    card = card if isinstance(card, DataCard) else load_card(card)
    known = {"data": card.name, "functional": str(card.level_of_theory["functional"])}
    for path in (path for files in pulled.files.values() for path in files):
        name = pulled.formats.get(path) or format_of(path)
        own = formats()[name].fields if name in formats() else None
        fields = units if units is not None else own or card.fields
        for frame in read(path, fields, file_format=name, **(options or {})):
            yield Frame(frame.atoms, frame.labels, frame.source, {**known, **frame.info})


def write_selection(frames: Iterable[Frame], selection: Selection, output: str | Path) -> int:
    """Write the frames chosen as extended XYZ (``units=ase``), whole or not at all.

    An output without a suffix becomes a training store, made from ``<output>.extxyz`` beside it,
    which is removed; after a kill in the conversion the same call goes on with it.

    Returns:
        How many there are.

    Raises:
        ValueError: If the output exists, or no frame passes.
    """
    if not Path(output).suffix:
        return _write_store(frames, selection, Path(output))
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists: remove it, or name another output")
    chosen = select(frames, selection) if selection.whole_pass else stream(frames, selection)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    count = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for frame in chosen:
                file.write(to_extxyz(frame))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _write_store(frames: Iterable[Frame], selection: Selection, output: Path) -> int:
    from mlip.data.store.convert import convert

    unfinished = (output / "conversion.json").is_file()
    if output.exists() and not unfinished:
        raise ValueError(f"{output} exists: remove it, or name another output")
    chosen = output.with_name(f"{output.name}.extxyz")
    if not (unfinished and chosen.is_file()):
        write_selection(frames, selection, chosen)
    store = convert(chosen, output, "ase")
    chosen.unlink()
    return len(store)


class _Bar:
    """A bar for one file; what it gives is called with what is there and what there will be."""

    def __init__(self, file: RemoteFile, shown: bool) -> None:
        counted = (DownloadColumn(), TransferSpeedColumn())
        columns = (MofNCompleteColumn(),) if file.mpcontribs else counted
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            disable=not shown,
            transient=True,
        )
        self.task = self.bar.add_task(file.filename, total=file.size)

    def __enter__(self) -> Callable[[int, int | None], None]:
        self.bar.start()
        return lambda done, total: self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _fetch(
    file: RemoteFile,
    folder: Path,
    narrowing: Narrowing,
    timeout_s: float,
    attempts: int,
    told: Callable[[int, int | None], None],
) -> Path:
    if file.manual:
        return _brought(file, folder / file.filename)
    if file.url:
        return download(file, folder, timeout_s=timeout_s, attempts=attempts, progress=told)
    if file.hub:
        return _from_hub(file, folder)
    return download_contributions(file, folder, narrowing, told)


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


def _pieces(path: Path, file_format: str) -> list[Path]:
    """Return what is to be read: files, or folders where the format is one of folders.

    A folder of ``.aselmdb`` files is one piece, so that its ``metadata.npz`` is checked.
    """
    if not archive.is_archive(path):
        return [path]
    stem = path.name
    for suffix in archive.SUFFIXES:
        stem = stem.removesuffix(suffix)
    members = archive.unpack(path, path.with_name(stem))
    if file_format == "aselmdb":
        pieces = {member.parent for member in members if member.suffix == ".aselmdb"}
    elif file_format == "deepmd":
        pieces = {member.parent for member in members if member.name == "type.raw"}
    else:
        pieces = {member for member in members if not member.name.endswith(_NOT_DATA)}
    if not pieces:
        held = ", ".join(member.name for member in members[:5])
        raise ValueError(
            f"{path} holds nothing of the format {file_format or 'of its card'} (it holds {held}); "
            "correct the card's format"
        )
    return sorted(pieces)

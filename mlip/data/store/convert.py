"""From any input to a store: in parallel, resumable, complete or not there at all."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mlip.data.frame import Frame
from mlip.data.store.layout import Layout, encode
from mlip.data.store.manifest import NAME, Manifest, merge, write_atomic
from mlip.data.store.pool import run_tasks
from mlip.data.store.reader import Store
from mlip.data.store.shard import write_shard
from mlip.data.store.tasks import (
    Task,
    frames_of,
    origin_of,
    require_found,
    sources_of,
    tasks_of,
)

_PLAN = "conversion.json"
_PARTS = ".parts"


@dataclass(frozen=True)
class _Done:
    """What a finished task says: its shards and the bytes of input that it took."""

    parts: list[dict[str, Any]]
    size: int


def convert(
    given: str | Path,
    output: str | Path,
    units: str | Mapping[str, Any] | None = None,
    *,
    workers: int = 1,
    layout: Layout | None = None,
    reader_options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Store:
    """Convert an input to a store, or go on with a conversion that was stopped.

    Shards get their names when they are complete and on the disk; a note beside each says so.
    After a kill the same call skips what is done. The manifest is written last: a folder without
    one is no store.

    Args:
        given: A file, a folder of files, the name of a data set or the path of a card.
        output: Folder to write.
        units: Units of the labels, as for :func:`mlip.data.readers.read`; a card brings its own.
        workers: Processes to parse and write with.
        layout: Cutoff, neighbour lists, and size of shards.
        reader_options: Options of the format's reader, kept in the manifest's origin.
        progress: Show a bar.

    Raises:
        FileNotFoundError: If there is no such input.
        ValueError: If the input cannot be read, or ``output`` holds something else.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: give a whole number from 1")
    layout = layout or Layout()
    folder = Path(output)
    sources = sources_of(given, units, reader_options)
    origin = {**origin_of(given, sources), "layout": asdict(layout)}
    with _locked(folder):
        _clean(folder)
        if _is_complete(folder, origin):
            _tidy(folder)  # a kill may have come between the manifest and this
            return Store(folder)
        work = partial(_convert_task, folder=folder, layout=layout)
        tasks = _unfinished(folder, tasks_of(sources, layout.shard_frames))
        total = sum(file["bytes"] for file in origin["files"])
        with _bar(total, progress) as advance:
            for done in run_tasks(work, tasks, workers):
                advance(done)
        _finish(folder, origin, layout, sources)
    return Store(folder)


def _convert_task(task: Task, folder: Path, layout: Layout) -> _Done:
    """Write the shards of one task; what stands there already is kept."""
    parts = []
    for place, frames in enumerate(_groups(frames_of(task), layout.shard_frames)):
        name = f"shard-{task.number:06d}-{place:04d}"
        note = folder / _PARTS / f"{name}.json"
        part = _read_note(folder, note)
        if part is None:
            batch, summary = encode(frames, layout)
            digest, size = write_shard(folder / f"{name}.arrow", batch)
            head = {"file": f"{name}.arrow", "sha256": digest, "bytes": size}
            split, file = task.source.split, str(task.source.path)
            part = {**head, "split": split, "input": file, **summary}
            write_atomic(note, json.dumps(part))
        parts.append(part)
    if not parts:
        raise ValueError(f"{task.source.path} holds no structure; name a file with some")
    done = folder / _PARTS / f"task-{task.number:06d}.json"
    write_atomic(done, json.dumps([part["file"] for part in parts]))
    return _Done(parts, task.size)


def _groups(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    while group := list(islice(frames, size)):
        yield group


def _unfinished(folder: Path, tasks: Iterator[Task]) -> Iterator[Task]:
    for task in tasks:
        note = folder / _PARTS / f"task-{task.number:06d}.json"
        files = _read_json(note) or []
        notes = [folder / _PARTS / f"{Path(name).stem}.json" for name in files]
        if not files or any(_read_note(folder, part) is None for part in notes):
            yield task


def _finish(folder: Path, origin: dict[str, Any], layout: Layout, sources: list[Any]) -> None:
    parts = []
    for note in sorted((folder / _PARTS).glob("task-*.json")):
        for name in _read_json(note) or []:
            parts.append(_read_json(folder / _PARTS / f"{Path(name).stem}.json"))
    found = merge(parts, origin, layout.cutoff, layout.neighbors)
    held: dict[str, set[str]] = {}
    for part in parts:
        held.setdefault(part["input"], set()).update(part["counts"].get("labels", {}))
    require_found(sources, held)
    found.write(folder)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove what only a conversion that goes on needs."""
    shutil.rmtree(folder / _PARTS, ignore_errors=True)
    (folder / _PLAN).unlink(missing_ok=True)


def _is_complete(folder: Path, origin: Mapping[str, Any]) -> bool:
    """Whether the folder holds this very conversion; refuse another one."""
    plan = json.loads(json.dumps(origin))
    if (folder / NAME).is_file():
        if Manifest.read(folder).origin == plan:
            return True
        raise ValueError(
            f"{folder} holds a store of another input or other options (see origin in {NAME}); "
            "give another output, or delete the folder"
        )
    others = {path.name for path in folder.iterdir()} - {_PLAN, _PARTS, ".lock"}
    if not (folder / _PLAN).is_file():
        if others:
            raise ValueError(
                f"{folder} holds {sorted(others)[0]} and is no store; give another output"
            )
        write_atomic(folder / _PLAN, json.dumps(plan, indent=1))
    elif _read_json(folder / _PLAN) != plan:
        raise ValueError(
            f"{folder} holds an unfinished conversion of another input or with other options (see "
            f"{_PLAN} there); repeat that command, give another output, or delete the folder"
        )
    (folder / _PARTS).mkdir(exist_ok=True)
    return False


def _read_note(folder: Path, note: Path) -> dict[str, Any] | None:
    """Return what the writer said of a shard, None unless the shard is there in full."""
    part = _read_json(note)
    if part is None:
        return None
    shard = folder / part["file"]
    return part if shard.is_file() and shard.stat().st_size == part["bytes"] else None


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _clean(folder: Path) -> None:
    for place in (folder, folder / _PARTS):
        for leftover in place.glob(".*.partial"):
            leftover.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone; the system lets go when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"another process is converting to {folder}; wait for it") from error
        yield


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("converting"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    frames = TextColumn("{task.fields[frames]:,} frames")
    console = Console(stderr=True)
    with Progress(*columns, frames, TimeRemainingColumn(), console=console, disable=not shown) as b:
        task = b.add_task("converting", total=total, frames=0)

        def advance(done: _Done) -> None:
            new = sum(part["frames"] for part in done.parts)
            b.update(task, advance=done.size, frames=b.tasks[0].fields["frames"] + new)

        yield advance
        b.update(task, completed=total)

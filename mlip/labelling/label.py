"""The label verb: one calculator on every frame of a file."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlip import config as configs
from mlip.data.fields import look_alikes
from mlip.data.frame import Frame
from mlip.data.journal import Journal
from mlip.data.readers import read_structures
from mlip.data.write_extxyz import to_extxyz
from mlip.keys import FIELDS, LABELS
from mlip.labelling.workers import compute

Structures = Callable[[], Iterator[Frame]]

_CHARGE_KEYS = ("total_charge", "charge")
_VERSIONS = ("mlip-suite", "ase", "numpy", "tblite", "torch", "chgnet", "mace-torch")


@dataclass(frozen=True)
class Labelled:
    """What a labelling gave.

    Args:
        output: Extended XYZ file of the frames that were computed, in the order of the input.
        report: JSON file: job, counts, and the message of each failure.
        frames: Number of frames written.
        failures: Message of each frame that failed, by its index in the input.
    """

    output: Path
    report: Path
    frames: int
    failures: Mapping[int, str]


def cli_run(overrides: Sequence[str]) -> Labelled:
    """Label as ``configs/label.yaml`` and the overrides say.

    Raises:
        ValueError: For a bad option, an unreadable input, a missing total charge, or if every
            frame failed.
    """
    from omegaconf import OmegaConf

    config = configs.compose("label", overrides)
    if config.get("calculator") is None:
        known = ", ".join(configs.options("calculator"))
        raise ValueError(f"say calculator=NAME, one of: {known}")
    configs.require_complete(config)
    if config.calculator.get("name") == "checkpoint" and config.checkpoint is None:
        raise ValueError("calculator=checkpoint has no file: say checkpoint=FILE")
    content: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return label(
        content["input"],
        content["output"],
        content["calculator"],
        workers=content["workers"],
        threads=content["threads"],
        options=content["options"],
        total_charge=content["total_charge"],
        timeout_s=content["timeout_s"],
    )


def label(  # noqa: PLR0913  the choices of configs/label.yaml
    source: str | Path,
    output: str | Path,
    calculator: Mapping[str, Any],
    *,
    workers: int = 1,
    threads: int = 1,
    options: Mapping[str, Any] | None = None,
    total_charge: float | None = None,
    timeout_s: float = 600.0,
    progress: bool = True,
) -> Labelled:
    """Compute the labels of every frame of a file.

    Finished frames are kept in ``<output>.journal``: a run that was killed goes on where it was
    when the same call is made again. ``<output>`` appears when all are done, whole.

    Args:
        source: Any file of structures; labels in it are not read, ``total_charge`` is.
        output: Extended XYZ file to write; read it back with ``units=ase``.
        calculator: ``build:`` block and ``card:`` of ``configs/calculator``.
        workers: Number of processes.
        threads: Threads of each.
        options: Options of the reader of ``source``.
        total_charge: Total charge (e) of frames that state none.
        timeout_s: Longest time for one frame, s.
        progress: Show a bar.

    Raises:
        FileNotFoundError: If there is no such input.
        ValueError: If the output exists, an option is out of range, the total charge is missing
            (in some frames only, or for a calculator that needs it), or every frame failed.
    """
    source, output = Path(source), Path(output)
    _check_options(output, workers, threads, timeout_s, total_charge)
    structures = partial(read_structures, source, **(options or {}))
    count = _check_charges(structures, total_charge, calculator.get("card", {}).get("needs", ()))
    job = {
        "input": _sha256(source),
        "frames": count,
        "build": dict(calculator["build"]),
        "options": dict(options or {}),
        "total_charge": total_charge,
        "versions": _versions(),
    }
    with Journal(output.with_name(f"{output.name}.journal"), job) as journal, ExitStack() as stack:
        tasks = _tasks(structures, total_charge, journal)
        answers = compute(tasks, calculator["build"], workers, threads, timeout_s)
        stack.callback(answers.close)  # type: ignore[attr-defined]
        bar, task = _bar(count, len(journal.done), progress)
        with bar:
            for index, answer in answers if len(journal.done) < count else ():
                journal.add({"frame": index, **answer})
                failed = f", {len(journal.failed)} failed" if journal.failed else ""
                bar.update(task, completed=len(journal.done), description=f"labelling{failed}")
        result = _finish(structures, output, total_charge, calculator, journal, job)
        journal.path.unlink()
    if len(result.failures) == count:
        first = next(iter(result.failures.values()))
        raise ValueError(
            f"each of the {count} frames failed, first with {first}; {result.report} lists them"
        )
    return result


def _check_options(
    output: Path, workers: int, threads: int, timeout_s: float, total_charge: Any
) -> None:
    for name, value in (("workers", workers), ("threads", threads), ("timeout_s", timeout_s)):
        if value <= 0:
            raise ValueError(f"{name} is {value}: give a number above zero")
    number = isinstance(total_charge, int | float) and math.isfinite(total_charge)
    if total_charge is not None and not number:
        raise ValueError(f"total_charge is {total_charge!r}: give a finite number of e")
    if output.exists():
        raise ValueError(f"{output} exists: remove it, or name another output")


def _check_charges(structures: Structures, total_charge: float | None, needs: Sequence[str]) -> int:
    """Return the number of frames; refuse a file whose charges would have to be guessed."""
    stated, missing = 0, []
    for frame in structures():
        if any(key in frame.info for key in _CHARGE_KEYS):
            stated += 1
        else:
            missing.append(frame.source)
    if missing and total_charge is None and (stated or "total_charge" in needs):
        why = f"{stated} others state theirs" if stated else "the calculator needs it"
        raise ValueError(
            f"{len(missing)} frames state no total_charge (first {missing[0]}), but {why}: put "
            "total_charge in the info of each, or give total_charge=0 when these are neutral"
        )
    return stated + len(missing)


def _tasks(
    structures: Structures, total_charge: float | None, journal: Journal
) -> Iterator[tuple[int, Atoms]]:
    for index, frame in enumerate(structures()):
        if index not in journal.done:
            atoms = frame.atoms.copy()
            atoms.info = _info(frame, total_charge)
            yield index, atoms


def _info(frame: Frame, total_charge: float | None) -> dict[str, Any]:
    """Return what identifies a frame, and its total charge; old labels stay behind."""
    charge = next((frame.info[k] for k in _CHARGE_KEYS if k in frame.info), total_charge)
    kept = {
        key: value
        for key, value in frame.info.items()
        if isinstance(value, str | int | float | np.integer | np.floating | np.bool_)
        and key not in (*LABELS, *_CHARGE_KEYS, *FIELDS)
        and not look_alikes("energy", {key: ("graph", ())})
    }
    return kept if charge is None else {**kept, "total_charge": float(charge)}


def _finish(
    structures: Structures,
    output: Path,
    total_charge: float | None,
    calculator: Mapping[str, Any],
    journal: Journal,
    job: Mapping[str, Any],
) -> Labelled:
    card = calculator.get("card", {})
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        for index, frame in enumerate(structures()):
            entry = journal.entry(index)
            if "labels" not in entry:
                continue
            info = _info(frame, total_charge)
            labels = {name: np.asarray(value) for name, value in entry["labels"].items()}
            if "total_charge" in info:
                labels["total_charge"] = np.asarray(info.pop("total_charge"))
            info |= {"functional": card.get("functional", "unknown"), "input_frame": index}
            file.write(to_extxyz(Frame(frame.atoms, labels, frame.source, info)))
        file.flush()
        os.fsync(file.fileno())
    failures = dict(sorted(journal.failed.items()))
    report = output.with_name(f"{output.name}.report.json")
    counts = {"computed": len(journal.done) - len(failures), "failed": len(failures)}
    listed = [{"frame": index, "message": message} for index, message in failures.items()]
    content = {**job, **counts, "calculator": card.get("label"), "failures": listed}
    report.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(output)
    return Labelled(output, report, counts["computed"], failures)


def _bar(total: int, done: int, shown: bool) -> tuple[Progress, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), disable=not shown)
    return bar, bar.add_task("labelling", total=total, completed=done)


def _sha256(path: Path) -> str:
    """Return the hash of a file, or of the names, sizes and times of the files of a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        held = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

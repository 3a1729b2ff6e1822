"""The train verb: Hydra's command line around :func:`mlip.training.run.run`."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from rich.console import Console

from mlip import config as configs
from mlip import paths
from mlip.errors import DivergedError
from mlip.training import sweeps

_FOR_THE_USER = (ValueError, FileNotFoundError, ModuleNotFoundError, DivergedError)


def cli_run(arguments: Sequence[str]) -> int:
    """Run ``configs/train.yaml`` with Hydra overrides and flags (``--multirun``, ``--cfg job``).

    Raises:
        ValueError: For an unknown key or option, with near matches.
    """
    _check_words(arguments)
    arguments = sweeps.completed(arguments)
    sweep = sweeps.is_sweep(arguments)
    if not sweep:
        overrides = [word for word in arguments if "=" in word or word[:1] in "~+"]
        config = configs.compose("train", overrides)
        _check_start(config, overrides)
        paths.check_folder(Path(config.output))  # Hydra makes it before our own code runs
    failed: list[Exception] = []
    jobs: list[tuple[list[str], Path]] = []

    def task(config: DictConfig) -> float | None:
        try:
            value = _task(config)
            jobs.append((list(HydraConfig.get().overrides.task), Path(config.output)))
            return value
        except _FOR_THE_USER as error:
            if sweep:  # perhaps in another process: the launcher carries it back
                raise
            failed.append(error)
            return None

    if sweep:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # what a job raised reaches our own command line
    sys.argv = ["mlip train", *arguments]
    hydra.main(version_base="1.3", config_path=str(paths.content("configs")), config_name="train")(
        task
    )()
    if failed:
        raise failed[0]
    if sweep:
        _compare(jobs)
    return 0


def _compare(jobs: Sequence[tuple[list[str], Path]]) -> None:
    """Put the runs of a sweep that this process has done side by side."""
    from mlip.evaluation.comparison import labelled, write_comparison

    done = [job for job in jobs if (job[1] / "summary.json").is_file()]
    if len(done) > 1:
        page = write_comparison(labelled(done), Path(os.path.commonpath([job[1] for job in done])))
        print(f"comparison: {page}")  # noqa: T201


def _task(config: DictConfig) -> float | None:
    """Run once; return what a sweep minimises."""
    from mlip.training.run import best_value, is_first, run

    try:
        configs.require_complete(config)
        folder = run(config)
    except InstantiationException as error:  # hydra wraps what a constructor refused
        cause = error.__cause__ or error
        raise cause if isinstance(cause, _FOR_THE_USER) else ValueError(str(cause)) from None
    if config.dry_run:  # Hydra made the folder
        with contextlib.suppress(OSError):
            folder.rmdir()
        return None
    if not is_first():  # the first process is still writing
        return None
    Console(highlight=False).print(
        f"report: {folder / 'report.html'}\npotential: {folder / 'best.safetensors'}"
    )
    return best_value(folder)


def _check_words(arguments: Sequence[str]) -> None:
    """Refuse a bare word, which Hydra would answer with its grammar."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        if "=" not in word and word[:1] not in "-~+" and not before.startswith("-"):
            raise ValueError(f"{word!r} is no override: write key=value (mlip train --help)")


def _check_start(config: DictConfig, overrides: Sequence[str]) -> None:
    """With ``start`` the model is that of the file, with the heads that it lacks; no more."""
    if config.start is None:
        return
    parts = ("model.", "backbone@", "term@", "~model", "+model")
    heard = ("model.precision=", "model.heads.", "model.neutral=")
    lost = [o for o in overrides if o.startswith(parts) and not o.startswith(heard)]
    if lost:
        raise ValueError(
            f"start={config.start} brings its own model, so {' '.join(lost)} would have no "
            "effect: leave it out (model.precision may be changed, and heads added, as by model=4g)"
        )

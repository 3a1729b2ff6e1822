"""One training run, from a config to a folder with potential, metrics, plots and report."""

import json
import logging
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import distributed

from mlip import runtime
from mlip.calculators.checkpoint import MlipCalculator
from mlip.data.batching import BudgetLoader
from mlip.data.loader import batches
from mlip.data.store.view import sample
from mlip.evaluation.evaluate import evaluate
from mlip.evaluation.run_report import write_run_report
from mlip.evaluation.terminal import print_errors
from mlip.training import devices, launch
from mlip.training.accelerate import accelerated
from mlip.training.callbacks import (
    AtomicCheckpointIO,
    History,
    ProgressBar,
    SaveBest,
    read_history,
)
from mlip.training.check import check
from mlip.training.module import TrainingModule
from mlip.training.randomness import RandomStates
from mlip.training.rehearsal import rehearse
from mlip.training.saving import SaveState
from mlip.training.setup import CHECKED, Setup, prepare
from mlip.training.stages import Patience, StageChange, Stages
from mlip.training.step import FrameTooLargeError
from mlip.training.strategy import SummedGradients, cluster
from mlip.training.throughput import Throughput
from mlip.training.wandb_run import logger_of

STATE = "last.ckpt"
FINISHED = "summary.json"
_TERMINATED = 128 + signal.SIGTERM  # exit code, as a shell gives it


def run(config: DictConfig) -> Path:
    """Train the potential that ``config`` describes and return its run folder.

    The folder holds ``config.yaml`` (resolved), ``metrics.csv`` (a row an epoch, with the weights
    of the loss at its start; ``train/loss`` has those of its steps, ``val/loss`` those of the end),
    ``best.safetensors`` and ``last.safetensors`` (potentials), ``last.ckpt`` (to resume),
    ``summary.json``, parity plots and ``report.html``. With ``dry_run`` one step is taken, what the
    run would cost is printed, and nothing is written.

    Raises:
        ValueError: For bad data, a bad option, or an output folder that holds another run.
        SystemExit: After a SIGTERM, when the state is written.
    """
    check(config)
    folder = Path(config.output)
    resume = _resume_from(config, folder)
    if resume is not None and (folder / FINISHED).is_file():
        print(f"{folder} holds this run already, finished")  # noqa: T201
        return folder
    count = devices.count(config)
    launch.check(config, count)
    with launch.processes(config, 1 if config.dry_run else count):
        _train(config, folder, resume, count)
    return folder


def is_first() -> bool:
    """Return whether this process is the first of its run: the one that writes and speaks."""
    return rank_zero_only.rank == 0


def best_value(folder: Path) -> float:
    """Return the lowest ``monitor`` of a finished run: what a sweep minimises."""
    return float(json.loads((folder / FINISHED).read_text())["best"])


def _train(config: DictConfig, folder: Path, resume: Path | None, count: int) -> None:
    """What each process of the run does; only the first one writes and speaks."""
    shared = runtime.share_of_cores(launch.local_processes())
    threads = runtime.set_threads(shared if config.threads is None else config.threads)
    torch.set_float32_matmul_precision(config.matmul)
    _quieten_lightning()
    lightning.seed_everything(config.seed, verbose=False)
    setup = prepare(config)
    train = batches(setup.train, config.data, shuffle=True, seed=config.seed)
    setup.findings += train.batches.findings()
    devices.check_validation(len(setup.val), count * config.trainer.num_nodes)
    if is_first():
        _announce(setup, threads)
    if config.dry_run:
        train.batches.pretend(count * config.trainer.num_nodes)
        _rehearse(config, setup, train)
        return
    if config.start is not None:
        config.model = setup.config  # that of the file, not that of the command line
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(_resolved(config))
    best = SaveBest(folder, setup.config, config.monitor, _card(setup))
    speed = Throughput()
    trainer = _trainer(config, folder, count, setup.loss.stages, [best, speed])
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    done = len(read_history(folder / "metrics.csv")) if resume else 0
    started = time.perf_counter()
    _fit(trainer, config, setup, train, resume)
    seconds = time.perf_counter() - started
    if not trainer.is_global_zero:
        return
    torch.set_float32_matmul_precision("highest")  # the errors are those a user will find
    if trainer.current_epoch < (trainer.max_epochs or 0):
        Console().print(f"stopped after {config.patience} epochs without a better {config.monitor}")
    frames = len(setup.train) * (trainer.current_epoch - done)
    timing = {
        "seconds": round(seconds, 1),
        "threads": threads,
        "devices": trainer.world_size,
        "structures_per_second": round(frames / seconds, 2) if frames else None,
        **{name: value for name, value in speed.last.items() if name != "device_hours_left"},
    }
    _report(folder, setup, best, timing, str(trainer.strategy.root_device))


def _fit(
    trainer: lightning.Trainer,
    config: DictConfig,
    setup: Setup,
    train: BudgetLoader,
    resume: Path | None,
) -> None:
    module = TrainingModule(
        setup.potential,
        setup.loss,
        instantiate(config.optimizer),
        instantiate(config.schedule),
        config.ema_decay,
        accelerated(config.accelerate),
    )
    try:
        trainer.fit(
            module,
            train,
            batches(setup.val, config.data),
            ckpt_path=resume,
            weights_only=True,
        )
    except SIGTERMException:
        if trainer.is_global_zero:
            told = f"stopped by SIGTERM; to go on: resume=auto output={config.output}"
            Console(highlight=False).print(told)
        sys.exit(_TERMINATED)
    except FrameTooLargeError as error:
        source = setup.splits.train[train.given[error.place]].source
        raise ValueError(f"{source}: {error}; leave it out, or use a smaller model") from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _rehearse(config: DictConfig, setup: Setup, train: BudgetLoader) -> None:
    device = {"gpu": "cuda"}.get(devices.accelerator(config), devices.accelerator(config))
    potential = setup.potential.to(device)
    optimizer = instantiate(config.optimizer)(potential.parameters())
    epochs = config.trainer.max_epochs
    found = rehearse(potential, setup.loss, optimizer, train, setup.val, epochs)
    note = "\nthe times are those of accelerate=null" if config.accelerate else ""
    Console(highlight=False).print(f"{found.to_text()}{note}\nnothing was written (dry_run=true)")


def _resume_from(config: DictConfig, folder: Path) -> Path | None:
    state = folder / STATE
    if config.resume not in (None, "auto"):
        raise ValueError(f"resume is {config.resume!r}: write auto to go on with output, or null")
    if config.resume == "auto":
        if not state.is_file():
            return None
        saved = folder / "config.yaml"
        if saved.is_file() and _comparable(saved.read_text()) != _comparable(_resolved(config)):
            raise ValueError(
                f"{folder} holds a run with another config: compare {saved} with your overrides, "
                "or give another output"
            )
        runtime.load_tensors(state)
        return state
    if state.exists() or (folder / FINISHED).exists():
        raise ValueError(
            f"{folder} already holds a run: give another output, or resume=auto to go on with it"
        )
    return None


def _resolved(config: DictConfig) -> str:
    """The config with every interpolation filled in; how it is resumed is not part of it."""
    content = OmegaConf.to_container(config, resolve=True)
    return OmegaConf.to_yaml({k: v for k, v in content.items() if k != "resume"})  # type: ignore[union-attr]


def _comparable(text: str) -> dict[str, Any]:
    """What must agree for a run to go on: all but where it runs and how its model was given."""
    content: dict[str, Any] = yaml.safe_load(text)
    ignored = {"output", "threads", "save_minutes", "dry_run"}
    ignored |= {"model"} if content.get("start") else set()
    return {key: value for key, value in content.items() if key not in ignored}


def _trainer(
    config: DictConfig, folder: Path, count: int, stages: Stages, first: list[Callback]
) -> lightning.Trainer:
    callbacks: list[Callback] = [
        StageChange(stages),
        SaveState(folder / STATE, config.save_minutes),
        *first,  # Throughput: after SaveState, which is no wait for data, and before History
        RandomStates(),
        History(folder / "metrics.csv"),
        ModelCheckpoint(
            folder,
            filename=Path(STATE).stem,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        ProgressBar(),
    ]
    if config.patience is not None:
        callbacks.append(Patience(config.monitor, config.patience, stages))
    return instantiate(
        config.trainer,
        accelerator=devices.accelerator(config),
        callbacks=callbacks,
        devices=count,
        strategy=SummedGradients() if count * config.trainer.num_nodes > 1 else "auto",
        plugins=[AtomicCheckpointIO(), cluster()],
        logger=logger_of(config.logger, folder) if is_first() else False,
        default_root_dir=str(folder),
        use_distributed_sampler=False,  # BudgetSampler knows the ranks
        inference_mode=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _card(setup: Setup) -> dict[str, Any]:
    return {
        **setup.splits.origin,
        "frames": {
            "train": len(setup.splits.train),
            "val": len(setup.splits.val),
            "test": len(setup.splits.test),
        },
        "properties": list(setup.loss.labels),
    }


def _announce(setup: Setup, threads: int) -> None:
    console = Console(highlight=False)
    frames = _card(setup)["frames"]
    weights = sum(parameter.numel() for parameter in setup.potential.parameters())
    console.print(
        f"[bold]{setup.splits.origin['data']}[/bold]  {frames['train']} training, "
        f"{frames['val']} validation, {frames['test']} test frames  ·  "
        f"{', '.join(setup.potential.elements)}  ·  {weights:,} weights  ·  {threads} threads"
    )
    if setup.splits.alignment is not None:
        console.print(setup.splits.alignment.to_text())
    for finding in setup.findings:
        console.print(f"{finding.severity}: {finding.message}")
    if setup.references.note:
        console.print(f"warning: {setup.references.note}")


def _report(
    folder: Path, setup: Setup, best: SaveBest, timing: Mapping[str, Any], device: str
) -> None:
    calculator = MlipCalculator(folder / "best.safetensors", device=device)
    splits = {"test": setup.splits.test, "val": setup.splits.val, "train": setup.splits.train}
    groups = {name: sample(frames, CHECKED) for name, frames in splits.items()}
    evaluations = {
        split: evaluate(calculator, frames, label=f"{folder.name} on {split} frames")
        for split, frames in groups.items()
        if frames
    }
    for split, evaluation in evaluations.items():
        evaluation.write(folder / split)
    print_errors(next(iter(evaluations.values())))
    summary = {
        "epochs": int(read_history(folder / "metrics.csv")[-1]["epoch"]) + 1,
        "best_epoch": best.best_epoch + 1,
        "best": best.best,
        "errors": {split: dict(found.errors.values) for split, found in evaluations.items()},
        "timing": dict(timing),
        "references": dict(setup.references.values),
        "notes": [note for note in (setup.references.note,) if note],
        **_card(setup),
    }
    write_run_report(
        folder,
        config_yaml=(folder / "config.yaml").read_text(),
        history=read_history(folder / "metrics.csv"),
        evaluations=evaluations,
        summary=summary,
    )
    partial = folder / f".{FINISHED}.partial"
    partial.write_text(json.dumps(summary, indent=2))
    partial.replace(folder / FINISHED)


def _quieten_lightning() -> None:
    """Lightning's notices about loggers, workers and its own deprecations are not the user's."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")

"""The command line: mlip train | evaluate | data | benchmark | list."""

import sys
from collections.abc import Callable, Sequence

from mlip import __version__
from mlip.errors import DivergedError, suggest

USAGE = f"""mlip {__version__}: train, benchmark and deploy potentials for battery interfaces

  mlip train      [group=option] [key=value]   train a potential (also: python train.py)
  mlip evaluate   checkpoint=FILE frames=FILE   errors and parity plots on labelled frames
  mlip benchmark  task=… calculator=…          score potentials; `mlip benchmark report` rebuilds the pages
  mlip data       inspect|doctor FILE          what a file holds; what would spoil a training
                  pull|select|convert …        download a set; choose frames; make a training store
                  label|sample …               compute labels; make structures
  mlip list       [GROUP]                      names one may type: datasets, model, calculator, task, …

Every verb explains itself: mlip VERB --help"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 checks found errors, 2 bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return
    if arguments[0] == "--version":
        print(__version__)
        return
    try:
        code = _run(*arguments)
    except (ValueError, FileNotFoundError, ModuleNotFoundError, DivergedError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, DivergedError) else 2)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    if code:
        sys.exit(code)


def _run(verb: str, *rest: str) -> int:
    if verb not in VERBS:
        raise ValueError(f"there is no command {verb!r}{suggest(verb, VERBS)}")
    if verb in HELP and any(word in ("-h", "--help") for word in rest):
        print(HELP[verb])
        return 0
    return VERBS[verb](rest)


def _train(overrides: Sequence[str]) -> int:
    from mlip.training.command import cli_run

    return cli_run(overrides)


def _evaluate(overrides: Sequence[str]) -> int:
    from mlip.evaluation.command import cli_run

    cli_run(list(overrides))
    return 0


def _benchmark(overrides: Sequence[str]) -> int:
    from mlip.benchmarks.sweep import cli_run

    cli_run(list(overrides))
    return 0


def _data(arguments: Sequence[str]) -> int:
    from mlip import data_cli

    return data_cli.run(arguments)


def _list(arguments: Sequence[str]) -> int:
    from mlip.listing import groups, names

    if not arguments:
        print("\n".join(f"{group:<11} {', '.join(names(group))}" for group in groups()))
        return 0
    for group in arguments:
        if group == "datasets":
            from mlip.data.card import summary_lines

            print("\n".join(summary_lines()))
        else:
            print("\n".join(names(group)))
    return 0


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "benchmark": _benchmark,
    "data": _data,
    "list": _list,
}

HELP = {
    "train": """mlip train [group=option] [key=value] …    (the same as python train.py)

  mlip train                                        241 frames of lithium, a small MACE
  mlip train data=extxyz data.path=my.extxyz data.units=ase output=runs/mine
  mlip train output=runs/mine resume=auto …         go on after a kill, with the same overrides
  mlip train logger=wandb trainer.max_epochs=100 backbone@model.backbone=mace
  mlip train start=FILE optimizer.lr=1e-4           go on from a checkpoint, a MACE .model, or chgnet_0_3_0
  mlip train … dry_run=true                         one step: weights, memory, time of an epoch and of all
  mlip train stages=two | stages=direct_forces model.backbone.max_l=1     second stage; direct forces first
  mlip train seed=3 threads=2 patience=20 model.precision=float64 loss=mse
  mlip train trainer=ddp                            every GPU of this machine; trainer.devices=2 trainer=cpu: two cores
  mlip train --multirun seed=1,2 'output=runs/seed_${seed}'
  mlip train --multirun hydra/launcher=slurm hydra.launcher.partition=NAME trainer.max_epochs=50,100
  mlip train --multirun hydra/sweeper=tpe hydra.sweeper.n_trials=20 'optimizer.lr=interval(1e-3,3e-2)'
  mlip train --cfg job                              print the config and stop
  mlip list model|backbone|data|loss|optimizer|…    what can be chosen""",
    "evaluate": """mlip evaluate checkpoint=FILE|calculator=NAME frames=FILE|DATASET [split=test] [units=ase] [output=DIR]

  mlip evaluate checkpoint=runs/demo/best.safetensors frames=mlearn_li split=test
  mlip evaluate calculator=chgnet_0_3_0 frames=my.extxyz units=ase""",
    "benchmark": """mlip benchmark task=NAME[,NAME] calculator=NAME[,NAME] [checkpoint=FILE] [tier=smoke|core|full] [output=DIR]

  mlip benchmark task=all calculator=chgnet_0_3_0,checkpoint checkpoint=runs/demo/best.safetensors
  mlip benchmark task=surface_energy cases=DIR calculator=chgnet_0_3_0,sevennet_0     your structures.extxyz, reference.csv
  mlip benchmark … 'modes=[static,relaxed]' limit=3 threads=2 device=cuda timeout_s=600 head=NAME
  mlip benchmark … environment=auto|current|isolated   what a calculator needs is installed once, into its own environment
  mlip benchmark report                             rebuild the leaderboard from recorded results""",
    "list": "mlip list [GROUP …]   names of datasets, or of a config group: model, backbone, task, calculator, …",
}

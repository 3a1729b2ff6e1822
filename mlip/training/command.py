"""The train verb: Hydra's command line around :func:`mlip.training.run.run`."""

import sys
from collections.abc import Sequence

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from rich.console import Console

from mlip import config as configs
from mlip import paths

_FOR_THE_USER = (ValueError, FileNotFoundError, ModuleNotFoundError)


def cli_run(arguments: Sequence[str]) -> int:
    """Run ``configs/train.yaml`` with Hydra overrides and flags (``--multirun``, ``--cfg job``).

    Raises:
        ValueError: For an unknown key or option, with near matches.
    """
    overrides = [argument for argument in arguments if "=" in argument or argument[:1] in "~+"]
    if not any(flag in arguments for flag in ("-m", "--multirun")):
        configs.compose("train", overrides)
    failed: list[Exception] = []

    def task(config: DictConfig) -> None:
        from mlip.training.run import run

        try:
            configs.require_complete(config)
            folder = run(config)
        except InstantiationException as error:  # hydra wraps what a constructor refused
            cause = error.__cause__ or error
            if not isinstance(cause, _FOR_THE_USER):
                raise
            failed.append(cause)
            return
        except _FOR_THE_USER as error:
            failed.append(error)
            return
        Console(highlight=False).print(
            f"report: {folder / 'report.html'}\npotential: {folder / 'best.safetensors'}"
        )

    sys.argv = ["mlip train", *arguments]
    hydra.main(version_base="1.3", config_path=str(paths.content("configs")), config_name="train")(
        task
    )()
    if failed:
        raise failed[0]
    return 0

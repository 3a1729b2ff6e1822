"""One run of Weights & Biases for one run folder, however often it is resumed."""

import secrets
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig

ID = "wandb_run_id"
"""File in the run folder that keeps the name of the run there."""


def logger_of(config: DictConfig, folder: Path) -> Any:
    """Return the logger of a config, or False where it has none.

    The id of a wandb run is kept in the run folder, so that a resumed training goes on in it:
    online at once, offline when both parts are synchronised (``wandb sync --append``).

    Args:
        config: The ``logger`` group.
        folder: Run folder; it exists.
    """
    if "_target_" not in config:
        return False
    if config["_target_"] != f"{WandbLogger.__module__.rpartition('.')[0]}.WandbLogger":
        return instantiate(config)
    path = folder / ID
    if not path.is_file():
        path.write_text(secrets.token_hex(4))
    return instantiate(config, id=path.read_text(), resume="allow")

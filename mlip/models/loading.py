"""Load a potential from whatever file holds one."""

from pathlib import Path
from typing import Any

import torch

from mlip.models.checkpoint import load as load_checkpoint
from mlip.models.checkpoint import read_header
from mlip.models.chgnet_foundation import MODELS, load_chgnet
from mlip.models.mace_foundation import load_mace
from mlip.models.potential import Potential


def load(
    path: str | Path, device: str | torch.device = "cpu", head: str | None = None
) -> Potential:
    """Return the potential in an mlip checkpoint or of a published model, ready to predict.

    Args:
        path: ``*.safetensors`` of a run, a MACE ``.model`` file, or the name of a model whose
            weights ship in its package: ``chgnet_0_3_0``, ``chgnet_r2scan``.
        device: Where the weights go.
        head: Which head of a multi-head MACE model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, of another format, or has parts mlip lacks.
    """
    return load_with_config(path, device, head)[0]


def load_with_config(
    path: str | Path, device: str | torch.device = "cpu", head: str | None = None
) -> tuple[Potential, dict[str, Any]]:
    """Return the potential and the resolved ``model`` config it was built from."""
    if str(path) in MODELS:
        potential, config = load_chgnet(str(path))
        return potential.to(device), config
    if Path(path).suffix == ".model":
        potential, config = load_mace(path, head)
        return potential.to(device), config
    if head is not None:
        raise ValueError(f"head is {head!r}, but {path} has one head only: leave head out")
    return load_checkpoint(path, device), read_header(path)["config"]

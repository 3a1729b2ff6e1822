"""Load a potential from whatever file holds one."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from mlip.models.checkpoint import load as load_checkpoint
from mlip.models.checkpoint import read_header
from mlip.models.chgnet_foundation import MODELS as CHGNET
from mlip.models.chgnet_foundation import load_chgnet
from mlip.models.mace_foundation import load_mace
from mlip.models.nequip_foundation import SUFFIX, load_nequip
from mlip.models.potential import Potential
from mlip.models.sevennet_foundation import MODELS as SEVENNET
from mlip.models.sevennet_foundation import load_sevennet

PUBLISHED = {**dict.fromkeys(CHGNET, load_chgnet), **dict.fromkeys(SEVENNET, load_sevennet)}
"""Names of models whose weights ship in a package -> what reads them."""
_FILES = {**{name: ("chgnet", file) for name, file in CHGNET.items()},
          **{name: ("sevenn", file) for name, file in SEVENNET.items()}}  # fmt: skip


def load(
    path: str | Path, device: str | torch.device = "cpu", head: str | None = None
) -> Potential:
    """Return the potential in an mlip checkpoint or of a published model, ready to predict.

    Args:
        path: ``*.safetensors`` of a run, a MACE ``.model``, SevenNet ``.pth`` or NequIP
            ``.nequip.zip`` file, or the name
            of a model whose weights ship in its package, one of ``PUBLISHED``.
        device: Where the weights go.
        head: Which head of a multi-head MACE model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, of another format, or has parts mlip lacks.
    """
    return load_with_config(path, device, head)[0]


def weights_file(path: str | Path) -> Path:
    """Return the file of weights that a path or the name of a published model stands for."""
    if str(path) not in PUBLISHED:
        return Path(path)
    package, file = _FILES[str(path)]
    return Path(str(files(package).joinpath(file)))


def load_with_config(
    path: str | Path, device: str | torch.device = "cpu", head: str | None = None
) -> tuple[Potential, dict[str, Any]]:
    """Return the potential and the resolved ``model`` config it was built from."""
    if str(path) in PUBLISHED:
        potential, config = PUBLISHED[str(path)](str(path))
        return potential.to(device), config
    if str(path).endswith(SUFFIX):
        potential, config = load_nequip(path)
        return potential.to(device), config
    if Path(path).suffix == ".pth":
        potential, config = load_sevennet(path)
        return potential.to(device), config
    if Path(path).suffix == ".model":
        potential, config = load_mace(path, head)
        return potential.to(device), config
    if head is not None:
        raise ValueError(f"head is {head!r}, but {path} has one head only: leave head out")
    return load_checkpoint(path, device), read_header(path)["config"]

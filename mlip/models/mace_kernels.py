"""Kernels of other packages for the convolutions of the mace backbone, by mace-torch's wrappers."""

from typing import Any

import torch

from mlip.models.backbones.mace import Mace
from mlip.runtime import default_precision, import_mace, quiet_third_party

PACKAGES = {
    "cuequivariance": (
        "cuequivariance_torch",
        "cuequivariance-torch cuequivariance-ops-torch-cu12",
    ),
    "openequivariance": ("openequivariance", "openequivariance"),
}
"""Kernels -> the module to import, and what pip installs."""


def use_kernels(backbone: Mace, name: str) -> None:
    """Replace the tensor products of all convolutions, which hold no weights.

    Each edge is computed by itself then, as these kernels need it. They are no part of the state
    of the backbone, so that files stay the same.

    Args:
        backbone: Backbone on its device, with blocks whose weights follow from radial functions.
        name: ``cuequivariance`` or ``openequivariance``.

    Raises:
        ValueError: If a block of the backbone is of another kind.
    """
    if not backbone.shares_pairs:
        raise ValueError(f"accelerate is {name}, but the blocks of this model are of another kind")
    import_mace()
    from mace.modules import wrapper_ops

    dtype = next(backbone.parameters()).dtype
    device = next(backbone.parameters()).device
    options: dict[str, Any] = {
        "cuequivariance": {
            "cueq_config": wrapper_ops.CuEquivarianceConfig(
                enabled=True, layout="mul_ir", group="O3_e3nn", optimize_channelwise=True
            )
        },
        "openequivariance": {
            "oeq_config": wrapper_ops.OEQConfig(enabled=True, optimize_channelwise=True)
        },
    }[name]
    backbone.shares_pairs = False
    for block in backbone.interactions:
        old: Any = block.conv_tp
        with default_precision(dtype), quiet_third_party(), torch.device(device):
            new = wrapper_ops.TensorProduct(
                old.irreps[0], old.irreps[1], old.irreps[2], instructions=old.instructions,
                shared_weights=False, internal_weights=False, **options,
            )  # fmt: skip
        del block.conv_tp
        block.__dict__["conv_tp"] = new.to(device)
        if name == "cuequivariance":  # the other sums over the neighbours itself
            del block.conv_fusion

"""The published CHGNet models, whose weights ship in the wheel of the package chgnet."""

from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlip.errors import suggest
from mlip.models.alone import energies_alone
from mlip.models.build import build
from mlip.models.potential import Potential

MODELS = {
    "chgnet_0_2_0": "pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
    "chgnet_0_3_0": "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
    "chgnet_r2scan": "pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
}
"""Name -> file in the package."""
_OWN = ("mlp", "site_wise", "composition_model")
_UNSEEN = ("Po", "At", "Rn", "Fr", "Ra")  # no material of the training sets has them
_SIZES = {
    "r_max": "atom_graph_cutoff",
    "r_bond": "bond_graph_cutoff",
    "channels": "atom_fea_dim",
    "layers": "n_conv",
    "radial_functions": "num_radial",
    "angular_functions": "num_angular",
    "cutoff_power": "cutoff_coeff",
}


def load_chgnet(name: str) -> tuple[Potential, dict[str, Any]]:
    """Return a published CHGNet as a potential, and its model config.

    Energies, forces, stress and magnetic moments are those of the package's own calculator. The
    energy that its network gives an atom without neighbours is part of the energy references here,
    so that ``E = Σ_i (E0 + f(h_i) - f(h_alone))`` is the same sum.

    Args:
        name: One of ``MODELS``.

    Raises:
        ValueError: If there is no such model.
        ModuleNotFoundError: If the package chgnet is not installed.
    """
    if name not in MODELS:
        raise ValueError(f"there is no published CHGNet {name!r}{suggest(name, MODELS)}")
    if find_spec("chgnet") is None:
        raise ModuleNotFoundError(
            f"{name} needs the package chgnet: pip install 'mlip-suite[chgnet]'", name="chgnet"
        )
    with files("chgnet").joinpath(MODELS[name]).open("rb") as file:
        found = torch.load(file, map_location="cpu", weights_only=True)["model"]
    weights: dict[str, Tensor] = found["state_dict"]
    references = weights["composition_model.fc.weight"].reshape(-1).double()
    config = _config(found["model_args"], len(references))
    config["backbone"]["output_biases"] = "atom_conv_layers.0.mlp_out.layers.1.bias" in weights
    potential = build({**config, "precision": "float64"})
    unread = (*_OWN, f"angle_layers.{config['backbone']['layers'] - 2}.")
    state = {f"backbone.{k}": v for k, v in weights.items() if not k.startswith(unread)}
    state |= _heads(weights)
    potential.load_state_dict({**potential.state_dict(), **state})
    _require_all(potential, state)
    known = torch.tensor([chemical_symbols.index(symbol) - 1 for symbol in config["elements"]])
    potential.energy_references.copy_(references[known] + energies_alone(potential))
    return potential.to_precision(torch.float32).eval(), config


def _config(arguments: Mapping[str, Any], rows: int) -> dict[str, Any]:
    backbone = {ours: arguments[theirs] for ours, theirs in _SIZES.items()}
    backbone["normalize"] = arguments["gMLP_norm"] is not None
    heads = "mlip.models.heads."
    return {
        "elements": [symbol for symbol in chemical_symbols[1 : rows + 1] if symbol not in _UNSEEN],
        "precision": "float32",
        "backbone": {"_target_": "mlip.models.backbones.chgnet.Chgnet", **backbone},
        "heads": {
            "magmoms": {"_target_": f"{heads}magmoms.Magmoms", "layer": -2},
            "energy": {
                "_target_": f"{heads}deep_energy.DeepEnergy",
                "hidden": list(arguments["mlp_hidden_dims"]),
            },
        },
        "terms": {},
    }


def _heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the read-outs; a dropout in the package's network shifts the number of the last."""
    numbers = sorted({int(key.split(".")[2]) for key in weights if key.startswith("mlp.")})
    found = {}
    for place, number in enumerate(numbers):
        for kind in ("weight", "bias"):
            found[f"heads.energy.network.{2 * place}.{kind}"] = weights[
                f"mlp.layers.{number}.{kind}"
            ]
    for kind in ("weight", "bias"):
        found[f"heads.magmoms.linear.{kind}"] = weights[f"site_wise.{kind}"]
    return found


def _require_all(potential: Potential, state: Mapping[str, Tensor]) -> None:
    own = {"energy_references", "heads.energy.scale", "heads.energy.shift"}
    if left := sorted(set(potential.state_dict()) ^ (set(state) | own)):
        raise ValueError(
            f"the weights in the package chgnet do not fit this backbone ({left[0]}): install "
            "chgnet 0.4"
        )

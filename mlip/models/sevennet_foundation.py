"""SevenNet models: those whose weights ship in the package sevenn, and its checkpoint files."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlip.models.alone import energies_alone
from mlip.models.build import build
from mlip.models.passive_pickle import load_passive
from mlip.models.potential import Potential
from mlip.runtime import default_precision, import_extra

_FOLDER = "pretrained_potentials"
MODELS = {
    "sevennet_0": f"{_FOLDER}/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "sevennet_l3i5": f"{_FOLDER}/SevenNet_l3i5/checkpoint_l3i5.pth",
}
"""Name -> file in the package. The one of May 2024 has harmonics that are not normalised."""
_OWN = ("reduce_", "rescale_")
_PLAIN: dict[str, Any] = {
    "use_bias_in_linear": False,
    "readout_as_fcn": False,
    "use_modality": False,
    "act_radial": "silu",
    "act_scalar": {"e": "silu", "o": "tanh"},
    "act_gate": {"e": "silu", "o": "tanh"},
    "_normalize_sph": True,
    "interaction_type": "nequip",
}
"""Options of the package that the backbone leaves as they are."""


def load_sevennet(path: str | Path) -> tuple[Potential, dict[str, Any]]:
    """Return a SevenNet as a potential, and its model config.

    Energies, forces and stress are those of the package's own calculator. The energy of an atom
    without neighbours is part of the energy references here, as for CHGNet. The file is a pickled
    program; only its tensors and names are read, none of its code is run.

    Args:
        path: One of ``MODELS``, or a ``.pth`` checkpoint of sevenn.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the package sevenn is not installed.
        ValueError: If the file is damaged or uses a part that the backbone does not have.
    """
    old = import_extra("sevennet", "sevenn", "sevenn.scripts.backward_compatibility")
    if str(path) in MODELS:
        path = Path(str(files("sevenn").joinpath(MODELS[str(path)])))
    found = load_passive(path)
    if not isinstance(found, dict) or not {"config", "model_state_dict"} <= set(found):
        raise ValueError(f"{path} is no checkpoint of sevenn: it has no config and weights")
    theirs, weights = old.patch_old_config(found["config"]), found["model_state_dict"]
    _require_plain(path, theirs)
    config = _config(theirs, {key.replace("denumerator", "denominator"): value
                              for key, value in weights.items()})  # fmt: skip
    potential = build({**config, "precision": "float64"})
    layers: Any = potential.backbone.layers
    with default_precision(torch.float32):  # it compares tables with those in the file
        weights = old.patch_state_dict_if_old(dict(weights), theirs, layers)
    state = {f"backbone.layers.{key}": value for key, value in weights.items()
             if not key.startswith(_OWN) and ".convolution." not in key}  # fmt: skip
    state |= _energy(path, weights)
    _require_all(path, potential, state)
    potential.load_state_dict({**potential.state_dict(), **state})
    shift = weights["rescale_atomic_energy.shift"].double().expand(len(config["elements"]))
    potential.energy_references.copy_(shift + energies_alone(potential))
    return potential.to_precision(torch.float32).eval(), config


def _require_plain(path: str | Path, theirs: Mapping[str, Any]) -> None:
    for option, usual in _PLAIN.items():
        if (value := theirs.get(option)) not in (None, usual):
            raise ValueError(f"{path} was built with {option}={value}: not supported here")
    if theirs["is_parity"]:
        raise ValueError(f"{path} was built with is_parity=True: not supported here")


def _config(theirs: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return our model config; species are numbered as in the file."""
    numbers = sorted(theirs["_type_map"], key=theirs["_type_map"].__getitem__)
    cutoff = theirs["cutoff_function"]
    manual = theirs.get("irreps_manual") or None
    widths = [theirs["channel"]] * (theirs["lmax"] + 1)
    if manual:
        widths = [int(part.split("x")[0]) for part in manual[1].split("+")]
    denominator = next(v for k, v in weights.items() if k.endswith("denominator"))
    return {
        "elements": [chemical_symbols[number] for number in numbers],
        "precision": "float32",
        "backbone": {
            "_target_": "mlip.models.backbones.sevennet.Sevennet",
            "r_max": float(theirs["cutoff"]),
            "channels": widths,
            "max_l": theirs["lmax"],
            "layers": theirs["num_convolution_layer"],
            "parity": False,
            "self_connection": theirs["self_connection_type"],
            "radial_functions": theirs["radial_basis"]["bessel_basis_num"],
            "radial_network": list(theirs["weight_nn_hidden_neurons"]),
            "cutoff_power": cutoff.get("poly_cut_p_value", 6),
            "cutoff_on": cutoff.get("cutoff_on"),
            "average_neighbors": float(denominator),
        },
        "heads": {"energy": {"_target_": "mlip.models.heads.linear_energy.LinearEnergy"}},
        "terms": {},
    }


def _energy(path: str | Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the two linear read-outs; e3nn divides each by the root of its fan-in."""
    first = weights["reduce_input_to_hidden.linear.weight"].double()
    second = weights["reduce_hidden_to_energy.linear.weight"].double()
    hidden = len(second)
    matrix = first.reshape(-1, hidden)
    joined = matrix @ second / (matrix.shape[0] * hidden) ** 0.5
    scale = weights["rescale_atomic_energy.scale"].double()
    if not torch.all(scale == scale[0]):
        raise ValueError(f"{path} scales the energies of elements differently: not supported here")
    return {"heads.energy.linear.weight": joined[None], "heads.energy.scale": scale[0]}


def _require_all(path: str | Path, potential: Potential, state: Mapping[str, Tensor]) -> None:
    """Every trained weight must have found its place, with its shape."""
    own = potential.state_dict()
    given = {"energy_references", "heads.energy.shift"}
    wrong = sorted(set(own) ^ (set(state) | given))
    wrong += [key for key in state if key in own and own[key].shape != state[key].shape]
    if wrong:
        raise ValueError(f"{path} does not fit the sevennet backbone ({wrong[0]})")

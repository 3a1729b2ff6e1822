"""Packaged NequIP and Allegro models (``.nequip.zip``), without running what is packed in them."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mlip.models.build import build
from mlip.models.passive_pickle import load_passive_package, package_member, tensors
from mlip.models.potential import Potential
from mlip.runtime import import_extra

SUFFIX = ".nequip.zip"
_BACKBONES = "mlip.models.backbones."
_HEADS = "mlip.models.heads."
_NEQUIP = {
    "r_max": "r_max",
    "num_features": "channels",
    "l_max": "max_l",
    "num_layers": "layers",
    "parity": "parity",
    "type_embed_num_features": "type_channels",
    "num_bessels": "radial_functions",
    "radial_mlp_depth": "radial_depth",
    "radial_mlp_width": "radial_width",
    "bessel_trainable": "radial_trainable",
    "polynomial_cutoff_p": "cutoff_power",
    "avg_num_neighbors": "average_neighbors",
}
_NEQUIP_DEFAULTS = {"num_layers": 4, "radial_mlp_width": 128}
_ALLEGRO = {
    "r_max": "r_max",
    "l_max": "max_l",
    "num_layers": "layers",
    "parity": "parity",
    "num_scalar_features": "scalar_channels",
    "num_tensor_features": "tensor_channels",
    "allegro_mlp_hidden_layers_depth": "network_depth",
    "allegro_mlp_hidden_layers_width": "network_width",
    "scalar_embed_mlp_hidden_layers_depth": "embedding_depth",
    "scalar_embed_mlp_hidden_layers_width": "embedding_width",
    "readout_mlp_hidden_layers_depth": "read_out_depth",
    "readout_mlp_hidden_layers_width": "channels",
    "tp_path_channel_coupling": "coupled_paths",
    "num_bessels": "radial_functions",
    "bessel_trainable": "radial_trainable",
    "polynomial_cutoff_p": "cutoff_power",
    "avg_num_neighbors": "average_neighbors",
}
_ALLEGRO_DEFAULTS = {"num_scalar_features": 64, "num_tensor_features": 16}
_SILU = (
    "readout_mlp_nonlinearity",
    "allegro_mlp_nonlinearity",
    "scalar_embed_mlp_nonlinearity",
)
_ELSEWHERE = (
    "_target_", "seed", "model_dtype", "type_names", "compile_mode", "do_derivatives",
    "per_type_energy_scales", "per_type_energy_scales_trainable", "per_type_energy_shifts",
    "per_type_energy_shifts_trainable", "preset", "radial_chemical_embed",
    "readout_mlp_hidden_layers_depth", "readout_mlp_hidden_layers_width", *_SILU,
)  # fmt: skip
"""Options that are read from the weights, handled apart, or mean nothing here."""


def load_nequip(path: str | Path) -> tuple[Potential, dict[str, Any]]:
    """Return a packaged NequIP or Allegro model as a potential, and its model config.

    Energies, forces and stress are those of the package's own calculator. A package is a program
    with its weights; only its tensors and its config are read, none of its code is run.

    Args:
        path: File that ``nequip-package build`` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the package nequip, or nequip-allegro, is not installed.
        ValueError: If the file is damaged or uses a part that the backbones do not have.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    theirs = _read_config(path)
    weights = {
        key.partition("func.")[2]: value
        for key, value in tensors(load_passive_package(path, "model/eager_model.pkl")).items()
    }
    target = str(theirs.get("_target_"))
    reader: Callable[..., Any] | None = _READERS.get(target.rpartition(".")[2])
    if reader is None:
        raise ValueError(
            f"{path} holds a {target}: only {', '.join(_READERS)} are supported, without changes"
        )
    config, state = reader(path, theirs, weights)
    config |= {"elements": list(theirs["type_names"]), "precision": theirs["model_dtype"]}
    potential = build({**config, "precision": "float64"})
    own = potential.state_dict()
    state |= {
        f"backbone.network.{key}": value
        for key, value in weights.items()
        if f"backbone.network.{key}" in own
    }
    state |= _scales(path, weights)
    _require_all(path, potential, state)
    potential.load_state_dict({**own, **{k: v.reshape(own[k].shape) for k, v in state.items()}})
    shifts = weights.get("per_type_energy_scale_shift.shifts", torch.zeros(1))
    potential.energy_references.copy_(shifts.double().reshape(-1).expand(len(potential.elements)))
    return potential.to_precision(getattr(torch, config["precision"])).eval(), config


def _read_config(path: str | Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(package_member(archive, "model/config.yaml"))
        return yaml.safe_load(text)["training_module"]["model"]
    except (zipfile.BadZipFile, LookupError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{path} is no package of nequip ({error}): make one with nequip-package build"
        ) from error


def _translate(
    path: str | Path, options: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return our options; refuse what the backbone cannot do."""
    for name, value in options.items():
        if name not in names and name not in _ELSEWHERE and value is not None:
            raise ValueError(f"{path} was built with {name}={value}: not supported here")
    for name in _SILU:
        if options.get(name, "silu") != "silu":
            raise ValueError(f"{path} was built with {name}={options[name]}: not supported here")
    if isinstance(options["avg_num_neighbors"], Mapping):
        raise ValueError(f"{path} normalises by elements: not supported here")
    return {ours: options[name] for name, ours in names.items() if options.get(name) is not None}


def _nequip(
    path: str | Path, theirs: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    module = import_extra("nequip", "nequip", "nequip.model.nequip_models")
    preset = {}
    if name := theirs.get("preset"):
        preset = {**module._NEQUIP_GNN_STANDARD_PRESET, **module._NEQUIP_GNN_PRESETS[name.upper()]}
    backbone = _translate(path, {**_NEQUIP_DEFAULTS, **preset, **theirs}, _NEQUIP)
    network = _linear(weights, "per_atom_energy_readout.mlp_module.mlp.")
    if len(network) == 1:
        head: dict[str, Any] = {"_target_": f"{_HEADS}linear_energy.LinearEnergy"}
        state = {"heads.energy.linear.weight": network[0]}
    else:
        hidden = [matrix.shape[0] for matrix in network[:-1]]
        head = {"_target_": f"{_HEADS}deep_energy.DeepEnergy", "hidden": hidden}
        state = {f"heads.energy.network.{2 * i}.weight": m for i, m in enumerate(network)}
        state |= {f"heads.energy.network.{2 * i}.bias": torch.zeros(m.shape[0])
                  for i, m in enumerate(network)}  # fmt: skip
    return _config(f"{_BACKBONES}nequip.Nequip", backbone, head), state


def _allegro(
    path: str | Path, theirs: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    embedding = dict(theirs["radial_chemical_embed"])
    if not str(embedding.pop("_target_")).endswith(".TwoBodyBesselScalarEmbed"):
        raise ValueError(f"{path} embeds distances by other than Bessel functions: not supported")
    backbone = _translate(path, {**_ALLEGRO_DEFAULTS, **theirs, **embedding}, _ALLEGRO)
    prefix = "edge_readout.mlp_module.mlp."
    network = _linear(weights, prefix)
    state = {"heads.energy.linear.weight": network[-1]}
    for number in range(len(network) - 1):  # the hidden layers keep their own scale
        name = f"{2 * number}.weight"
        state[f"backbone.edge_readout.{name}"] = weights[prefix + name]
    head = {"_target_": f"{_HEADS}linear_energy.LinearEnergy"}
    return _config(f"{_BACKBONES}allegro.Allegro", backbone, head), state


_READERS = {"NequIPGNNModel": _nequip, "PresetNequIPGNNModel": _nequip, "AllegroModel": _allegro}


def _config(target: str, backbone: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    return {"backbone": {"_target_": target, **backbone}, "heads": {"energy": head}, "terms": {}}


def _linear(weights: Mapping[str, Tensor], prefix: str) -> list[Tensor]:
    """Return the matrices of a network, (out, in); the package scales its layers by their width."""
    numbers = sorted(
        int(key.removeprefix(prefix).split(".")[0])
        for key in weights
        if key.startswith(prefix) and key.endswith(".weight")
    )
    found = []
    for number in numbers:
        matrix = weights[f"{prefix}{number}.weight"].double()
        gain = 1.0 if number == 0 else 2.0
        found.append((gain / matrix.shape[0]) ** 0.5 * matrix.T)
    return found


def _scales(path: str | Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    scales = weights.get("per_type_energy_scale_shift.scales", torch.ones(1)).double().reshape(-1)
    if not torch.all(scales == scales[0]):
        raise ValueError(f"{path} scales the energies of elements differently: not supported here")
    return {"heads.energy.scale": scales[0]}


def _require_all(path: str | Path, potential: Potential, state: Mapping[str, Tensor]) -> None:
    """Every weight that is trained must have found its place."""
    given = {"energy_references", "heads.energy.shift"}
    own = potential.state_dict()
    wrong = sorted(set(own) ^ (set(state) | given))
    wrong += [key for key in state if key in own and own[key].numel() != state[key].numel()]
    if wrong:
        raise ValueError(f"{path} does not fit the backbone ({wrong[0]})")

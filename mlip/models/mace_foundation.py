"""Read a MACE foundation model (``.model``) into a potential, without running its pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlip.errors import suggest
from mlip.models.build import build
from mlip.models.passive_pickle import Passive, load_passive, tensors
from mlip.models.potential import Potential
from mlip.runtime import import_mace

_TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}
_PLAIN = {
    "use_so3": False,
    "use_agnostic_product": False,
    "use_last_readout_only": False,
    "edge_irreps": None,
    "use_edge_irreps_first": False,
}
"""Options of mace-torch that our backbone leaves at their defaults."""
_PARTS = ("node_embedding.", "radial_embedding.", "interactions.", "products.")


def load_mace(path: str | Path, head: str | None = None) -> tuple[Potential, dict[str, Any]]:
    """Return the potential in a MACE model file, and its model config.

    Energies, forces and stress are those of mace-torch's own calculator. The file is a pickled
    program; only its tensors and names are read, none of its code is run.

    Args:
        path: ``.model`` file as mace-torch writes it.
        head: Which head of a multi-head model; None if it has one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is no MACE energy model, needs a head to be named, or
            uses a part that the backbone does not have.
    """
    model = load_passive(path)
    name = type(model).__name__
    if not isinstance(model, Passive) or name not in ("MACE", "ScaleShiftMACE"):
        raise ValueError(f"{path} holds a {name}; a MACE or ScaleShiftMACE model is needed")
    weights = tensors(model)
    precision = weights["node_embedding.linear.weight"].dtype
    index, heads = _head_index(path, model.state.get("heads") or ["Default"], head)
    scale = float(weights.get("scale_shift.scale", torch.ones(1)).reshape(-1).expand(heads)[index])
    shift = float(weights.get("scale_shift.shift", torch.zeros(1)).reshape(-1).expand(heads)[index])
    config = _config(path, model, weights, scale) | {
        "precision": str(precision).removeprefix("torch.")
    }
    potential = build({**config, "precision": "float64"})
    state = potential.state_dict()
    new = {f"backbone.{key}": value for key, value in weights.items() if key.startswith(_PARTS)}
    new |= _readouts(weights, index, heads)
    new |= {"heads.energy.scale": torch.tensor(scale), "heads.energy.shift": torch.tensor(shift)}
    new["energy_references"] = weights["atomic_energies_fn.atomic_energies"].reshape(heads, -1)[
        index
    ]
    _check_complete(path, state, new)
    potential.load_state_dict({**state, **{k: v for k, v in new.items() if k in state}})
    return potential.to_precision(precision).eval(), config


def _head_index(path: str | Path, heads: list[str], wanted: str | None) -> tuple[int, int]:
    if wanted is None and len(heads) > 1:
        raise ValueError(f"{path} has the heads {', '.join(heads)}: name one")
    if wanted is not None and wanted not in heads:
        raise ValueError(f"{path} has no head {wanted!r}{suggest(wanted, heads)}")
    return (heads.index(wanted) if wanted is not None else 0), len(heads)


def _config(
    path: str | Path, model: Passive, weights: Mapping[str, Tensor], scale: float
) -> dict[str, Any]:
    for option, usual in _PLAIN.items():
        if model.state.get(option, usual) != usual:
            raise ValueError(f"{path} was built with {option}={model.state[option]}: not supported")
    modules = model.state["_modules"]
    if "joint_embedding" in modules:
        raise ValueError(f"{path} embeds total charge or spin: not supported by this backbone")
    interactions = list(modules["interactions"].state["_modules"].values())
    hidden = _irreps(interactions[0].state["hidden_irreps"])
    if any(parity != (-1) ** degree for _, degree, parity in hidden):
        raise ValueError(f"{path} has hidden irreps {hidden}: pseudo-tensors are not supported")
    numbers = weights["atomic_numbers"].tolist()
    power = int(weights["radial_embedding.cutoff_fn.p"])
    radial = modules["radial_embedding"].state
    transform = radial["_modules"].get("distance_transform")
    contraction = (
        modules["products"]
        .state["_modules"]["0"]
        .state["_modules"]["symmetric_contractions"]
        .state["_modules"]["contractions"]
        .state["_modules"]["0"]
    )
    backbone = {
        "_target_": "mlip.models.backbones.mace.Mace",
        "r_max": float(weights["r_max"]),
        "channels": hidden[0][0],
        "max_l": max(degree for _, degree, _ in hidden),
        "max_ell": max(d for _, d, _ in _irreps(interactions[0].state["edge_attrs_irreps"])),
        "correlation": int(contraction.state["correlation"]),
        "layers": len(interactions),
        "radial_functions": _bessel(path, weights),
        "cutoff_power": power,
        "radial_network": list(interactions[0].state.get("radial_MLP", [64, 64, 64])),
        "average_neighbors": float(interactions[0].state["avg_num_neighbors"]),
        "interaction_first": type(interactions[0]).__name__,
        "interaction": type(interactions[-1]).__name__,
        "distance_transform": _TRANSFORMS[type(transform).__name__] if transform else "None",
        "apply_cutoff": bool(model.state.get("apply_cutoff", True)),
        "reduced_products": bool(model.state.get("use_reduced_cg", False)),
    }
    terms = {}
    if "pair_repulsion_fn" in modules:
        terms["zbl"] = {"_target_": "mlip.models.terms.zbl.ZBL", "power": power, "factor": scale}
    return {
        "elements": [chemical_symbols[number] for number in numbers],
        "backbone": backbone,
        "heads": {
            "energy": {
                "_target_": "mlip.models.heads.energy.Energy",
                "hidden": _hidden_width(weights, len(model.state.get("heads") or [0])),
            }
        },
        "terms": terms,
    }


def _irreps(passive: Any) -> list[tuple[int, int, int]]:
    """Multiplicity, degree and parity of each part of a pickled ``e3nn.o3.Irreps``."""
    (parts,) = passive.arguments
    found = []
    for part in parts:
        ((multiplicity, irrep),) = part.arguments
        found.append((multiplicity, *irrep.arguments[0]))
    return found


def _bessel(path: str | Path, weights: Mapping[str, Tensor]) -> int:
    key = "radial_embedding.bessel_fn.bessel_weights"
    if key not in weights:
        raise ValueError(f"{path} uses radial functions other than Bessel functions: not supported")
    return len(weights[key])


def _last_readout(weights: Mapping[str, Tensor]) -> int:
    return max(int(key.split(".")[1]) for key in weights if key.startswith("readouts."))


def _hidden_width(weights: Mapping[str, Tensor], heads: int) -> int:
    return weights[f"readouts.{_last_readout(weights)}.linear_2.weight"].numel() // heads**2


def _readouts(weights: Mapping[str, Tensor], head: int, heads: int) -> dict[str, Tensor]:
    """e3nn divides by the root of the fan-in and normalises its activation: fold both in."""
    import_mace()
    from e3nn.math import normalize2mom

    new: dict[str, Tensor] = {}
    last = _last_readout(weights)
    for layer in range(last):
        flat = weights[f"readouts.{layer}.linear.weight"].reshape(-1, heads)
        new[f"heads.energy.linear.{layer}.weight"] = flat[:, head][None] / flat.shape[0] ** 0.5
    width = _hidden_width(weights, heads)
    block = slice(head * width, (head + 1) * width)
    first = weights[f"readouts.{last}.linear_1.weight"].reshape(-1, heads * width)
    second = weights[f"readouts.{last}.linear_2.weight"].reshape(heads * width, heads)
    gain: float = normalize2mom(torch.nn.functional.silu).cst  # type: ignore[assignment]
    new["heads.energy.network.0.weight"] = first[:, block].T / first.shape[0] ** 0.5
    new["heads.energy.network.2.weight"] = gain * second[block, head][None] / (heads * width) ** 0.5
    return new


def _check_complete(
    path: str | Path, state: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> None:
    """Every trained weight must have found its place; tables of constants are rebuilt."""
    missing = [
        key
        for key in state
        if key not in new
        and not key.startswith("terms.")
        and "_w3j_" not in key
        and ".conv_tp." not in key
    ]
    unused = [key for key in new if key not in state and ".conv_tp." not in key]
    wrong = [key for key in new if key in state and state[key].shape != new[key].shape]
    if missing or unused or wrong:
        raise ValueError(
            f"{path} does not fit the mace backbone: missing {missing[:3]}, unknown {unused[:3]}, "
            f"of another shape {wrong[:3]}; it was written by a mace-torch that differs"
        )

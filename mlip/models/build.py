"""Build a potential from its resolved config; nothing outside the allow-list is instantiated."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import instantiate

from mlip.models.potential import Potential

ALLOWED = ("mlip.models.backbones.", "mlip.models.heads.", "mlip.models.terms.")
"""Packages whose classes a checkpoint may name."""
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def resolve(
    config: Mapping[str, Any], elements: Sequence[str], average_neighbors: float
) -> dict[str, Any]:
    """Return the model config with what only the data can tell filled in.

    Args:
        config: The ``model`` group, plain containers.
        elements: Symbols of the training set.
        average_neighbors: Mean number of neighbours within ``r_max``.
    """
    backbone = dict(config["backbone"])
    if backbone.get("average_neighbors", 0.0) is None:
        backbone["average_neighbors"] = round(float(average_neighbors), 6)
    chosen = list(config.get("elements") or elements)
    unknown = sorted(set(elements) - set(chosen))
    if unknown:
        raise ValueError(
            f"model.elements is {chosen} but the data also hold {', '.join(unknown)}: add them"
        )
    return {**config, "elements": chosen, "backbone": backbone}


def build(config: Mapping[str, Any]) -> Potential:
    """Build the potential that a resolved ``model`` config describes.

    Args:
        config: ``elements``, ``precision``, ``backbone``, ``heads`` and ``terms``; each part names
            its class by ``_target_``.

    Raises:
        ValueError: If a ``_target_`` lies outside the allow-list, a part is missing, or the
            precision is unknown.
    """
    precision = config.get("precision", "float32")
    if precision not in PRECISIONS:
        raise ValueError(f"model.precision is {precision!r}: choose {' or '.join(PRECISIONS)}")
    for part in ("elements", "backbone", "heads"):
        if not config.get(part):
            raise ValueError(f"the model config has no {part!r}: a potential needs it")
    _check_targets(config, "model")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        backbone = instantiate(config["backbone"], elements=list(config["elements"]))
        heads = {
            name: instantiate(head, channels=backbone.channels)
            for name, head in config["heads"].items()
        }
        terms = {name: instantiate(term) for name, term in (config.get("terms") or {}).items()}
        potential = Potential(config["elements"], backbone, heads, terms)
    finally:
        torch.set_default_dtype(default)
    return potential.to_precision(PRECISIONS[precision])


def _check_targets(node: Any, where: str) -> None:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(ALLOWED):
            raise ValueError(
                f"{where}._target_ is {target!r}: only classes of {', '.join(ALLOWED)} are built"
            )
        for key, value in node.items():
            if str(key).startswith("_") and key not in ("_target_",):
                raise ValueError(f"{where}.{key} is not allowed in a model config: remove it")
            _check_targets(value, f"{where}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _check_targets(value, f"{where}[{index}]")

"""Build a potential from its resolved config; nothing outside the allow-list is instantiated."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mlip.locate import locate
from mlip.models.backbone import Backbone
from mlip.models.head import Head
from mlip.models.potential import Potential
from mlip.models.term import Term
from mlip.runtime import default_precision

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
    with default_precision(torch.float64):
        elements = list(config["elements"])
        backbone = _part(config["backbone"], Backbone, "model.backbone", elements=elements)
        heads = {
            name: _head(head, f"model.heads.{name}", backbone, elements)
            for name, head in config["heads"].items()
        }
        terms = {
            name: _part(term, Term, f"model.terms.{name}")
            for name, term in (config.get("terms") or {}).items()
        }
        potential = Potential(elements, backbone, heads, terms)
    return potential.to_precision(PRECISIONS[precision])


def head_classes(heads: Mapping[str, Any] | None) -> dict[str, type[Head]]:
    """Return the class of each head of a model config, in order.

    Raises:
        ValueError: If a ``_target_`` lies outside the allow-list or names nothing.
    """
    return {
        name: locate(str(node.get("_target_", "")), ALLOWED) for name, node in (heads or {}).items()
    }


def _head(node: Mapping[str, Any], where: str, backbone: Backbone, elements: Sequence[str]) -> Head:
    """Make one head, told what it needs of the backbone and the elements."""
    needs = getattr(locate(str(node.get("_target_", "")), ALLOWED), "needs", ())
    told = {
        name: list(elements) if name == "elements" else getattr(backbone, name) for name in needs
    }
    return _part(node, Head, where, **told)


def _part(node: Mapping[str, Any], kind: type, where: str, **given: Any) -> Any:
    """Make one backbone, head or term; its options are plain values, never classes."""
    options = {str(key): value for key, value in node.items() if key != "_target_"}
    if hidden := [key for key in options if key.startswith("_")]:
        raise ValueError(f"{where}.{hidden[0]} is not allowed in a model config: remove it")
    target = locate(str(node.get("_target_", "")), ALLOWED)
    if not (isinstance(target, type) and issubclass(target, kind)):
        raise ValueError(f"{where}._target_ {node['_target_']!r} is no {kind.__name__}")
    try:
        return target(**options, **given)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error

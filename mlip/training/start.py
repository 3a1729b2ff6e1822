"""A potential to start from, with heads that it did not have."""

from collections.abc import Mapping
from typing import Any

from mlip.models.build import build, head_classes
from mlip.models.energy_head import EnergyHead
from mlip.models.potential import Potential


def extended(
    potential: Potential, model: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[Potential, dict[str, Any]]:
    """Return a potential with the heads that a config wants beside its own, and its config.

    Energy heads stay those of the potential. Any other wanted head that it lacks, or has of another
    class under that name, is new: a second-generation potential becomes one of the fourth, whose
    energy is at first what it was plus that of the charges.

    Args:
        potential: What was loaded.
        model: Its resolved ``model`` config.
        wanted: The ``heads`` of the config of the training, in order.
    """
    own = dict(model["heads"])
    classes, own_classes = head_classes(wanted), head_classes(own)
    new = [
        name
        for name, head in classes.items()
        if not issubclass(head, EnergyHead) and own_classes.get(name) is not head
    ]
    if not new:
        return potential, dict(model)
    names = [*wanted, *(name for name in own if name not in wanted)]
    heads = {name: wanted[name] if name in new else own[name] for name in names
             if name in new or name in own}  # fmt: skip
    config = {**model, "heads": heads}
    larger = build(config)
    kept = {
        name: value
        for name, value in potential.state_dict().items()
        if not any(name.startswith(f"heads.{head}.") for head in new)
    }
    missing, unexpected = larger.load_state_dict(kept, strict=False)
    left = [name for name in missing if not name.startswith(tuple(f"heads.{h}." for h in new))]
    if left or unexpected:
        raise ValueError(f"weights do not fit after adding {', '.join(new)}: {left or unexpected}")
    return larger.to(potential.device), config

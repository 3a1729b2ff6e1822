"""Charges of the frames, checked before a potential with charges is trained on them."""

from collections.abc import Sequence

import numpy as np

from mlip.data.check_charges import CHARGE_SUM
from mlip.data.frame import Frame
from mlip.models.potential import Potential


def require_charges(frames: Sequence[Frame], potential: Potential, learned: bool) -> None:
    """Refuse frames that a potential with charges cannot be told or taught.

    Args:
        frames: Frames, or a sample of them.
        potential: The potential.
        learned: Whether charges are in the loss.

    Raises:
        ValueError: If frames state no total charge and a head needs it, or if charges to learn do
            not add up to it.
    """
    asking = [name for name, head in potential.heads.items() if "total_charge" in head.inputs]  # type: ignore[operator]
    for name in asking:
        if not potential.heads[name].neutral:  # type: ignore[union-attr]
            _require_stated(frames, name)
    if asking and learned:
        _require_sums(frames)


def _require_stated(frames: Sequence[Frame], head: str) -> None:
    lacking = [frame for frame in frames if "total_charge" not in frame.labels]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(frames)} frames state no total charge (first "
            f"{lacking[0].source}), which the head {head} needs: give total_charge (e) in the info "
            "of every frame and declare it with the units, or, if those without are neutral, "
            "model.neutral=true"
        )


def _require_sums(frames: Sequence[Frame]) -> None:
    for frame in frames:
        if "charges" not in frame.labels:
            continue
        total = float(np.ravel(frame.labels.get("total_charge", 0.0))[0])
        found = float(np.sum(frame.labels["charges"]))
        if np.isfinite(found) and not abs(found - total) <= CHARGE_SUM:
            raise ValueError(
                f"{frame.source}: its charges add up to {found:+.3f} e and its total charge is "
                f"{total:+g} e, more than {CHARGE_SUM} e apart: correct either, or leave charges "
                "out of the loss"
            )

"""What the header of an mlip checkpoint tells a leaderboard, read without torch."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open


def checkpoint_card(path: Path) -> dict[str, Any]:
    """Return the fields of a calculator card that a checkpoint knows itself.

    Returns:
        label, training_sets, functional, parameters, dtype, elements; those that it does not
        state are absent.

    Raises:
        ValueError: If a file of mlip is truncated, or no mlip checkpoint.
    """
    if path.suffix == ".model":  # of mace-torch: only the worker, which has torch, looks inside
        return {"label": f"{path.parent.name}/{path.stem}"}
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["mlip"])
            sizes = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"checkpoint {str(path)!r} cannot be read: it is truncated, or no mlip checkpoint "
            f"({type(error).__name__}); give a .safetensors file that mlip train wrote"
        ) from error
    card, config = header.get("card", {}), header.get("config", {})
    found = {
        "label": f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem,
        "training_sets": [card["data"]] if card.get("data") else None,
        "functional": (card.get("level_of_theory") or {}).get("functional"),
        "parameters": sum(sizes),
        "dtype": config.get("precision"),
        "elements": config.get("elements"),
    }
    return {key: value for key, value in found.items() if value is not None}

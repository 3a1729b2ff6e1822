"""Metric names into words and units: ``forces_rmse_meV_per_A`` reads 'Forces RMSE', meV/Å."""

import re

_NAME = re.compile(
    r"^(?:(?P<split>[A-Za-z]+)[/.])?(?P<quantity>.+?)_(?P<kind>mae|rmse|max)_(?P<unit>.+)$"
)
_UNITS = {
    "meV_per_A": "meV/Å",
    "eV_per_A": "eV/Å",
    "meV_per_A3": "meV/Å³",
    "J_per_m2": "J/m²",
    "me": "10⁻³ e",
}
_KINDS = {"mae": "MAE", "rmse": "RMSE", "max": "largest error"}


def describe(metric: str) -> tuple[str, str]:
    """Return what a metric name says: words without the split, and the unit.

    Args:
        metric: ``[split/]quantity_kind_unit`` with kind mae, rmse or max, as
            ``val/energy_per_atom_rmse_meV``. Any other name comes back with its underscores
            as spaces and no unit.
    """
    match = _NAME.match(metric)
    if match is None:
        return metric.rpartition("/")[2].replace("_", " "), ""
    quantity, unit = match["quantity"], _UNITS.get(match["unit"], match["unit"])
    if "per_atom" in quantity:
        quantity, unit = quantity.replace("_per_atom", ""), f"{unit}/atom"
    words = quantity.replace("_", " ")
    return f"{words[:1].upper()}{words[1:]} {_KINDS[match['kind']]}", unit


def split_of(metric: str) -> str:
    """Return the split that a logged name begins with (``val/loss`` gives ``val``), or nothing."""
    return metric.partition("/")[0] if "/" in metric else ""

"""The files of an evaluation: metrics, predictions, parity plots, one page."""

import csv
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlip.evaluation.evaluate import Evaluation
from mlip.evaluation.metrics import QUANTITIES
from mlip.reporting import figures
from mlip.reporting.html import write_page, write_text
from mlip.reporting.labels import describe
from mlip.units import GPA_PER_EV_A3

PLOTS = {
    "energy": ("energy_per_atom", "energy", "eV/atom", 1.0),
    "forces": ("forces", "force component", "eV/Å", 1.0),
    "stress": ("stress", "stress component", "GPa", GPA_PER_EV_A3),
    "charges": ("charges", "partial charge", "e", 1.0),
    "dipole": ("dipole", "dipole component", "e·Å", 1.0),
    "born_effective_charges": (
        "born_effective_charges",
        "component of the Born effective charge",
        "e",
        1.0,
    ),
    "magmoms": ("magmoms", "size of the magnetic moment", "μB", 1.0),
}
"""File stem -> quantity, words, unit and factor of its parity plot."""
_WORST = 10


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write everything about an evaluation and return the path of its page."""
    folder.mkdir(parents=True, exist_ok=True)
    errors = evaluation.errors
    content = {
        "label": evaluation.label,
        "frames": len(evaluation.frames),
        "failed": len(evaluation.failures),
        "errors": dict(errors.values),
        "components": dict(errors.used),
        "frames_without": dict(errors.missing),
        "groups": {
            name: {"errors": dict(found.values), "components": dict(found.used)}
            for name, found in evaluation.group_errors().items()
        },
        "provenance": {**evaluation.provenance, **versions()},
    }
    write_text(folder / "metrics.json", json.dumps(content, indent=2))
    _write_predictions(evaluation, folder / "predictions.csv")
    if any("charges" in prediction for prediction in evaluation.predictions):
        _write_charges(evaluation, folder / "charges.csv")
    images = {}
    for name, figure in parity_plots(evaluation).items():
        figures.save(figure, folder / f"parity_{name}.png")
        images[name] = figures.svg(figure)
    return write_page(
        folder / "report.html",
        "evaluation.html",
        label=evaluation.label,
        frames=len(evaluation.frames),
        failures=failures(evaluation),
        rows=error_rows(evaluation),
        groups=group_rows(evaluation),
        images=images,
        worst=worst(evaluation),
        provenance={**evaluation.provenance, **versions()},
    )


def parity_plots(evaluation: Evaluation) -> dict[str, Figure]:
    """Return a parity plot of each quantity that has labels."""
    plots = {}
    for name, (quantity, words, unit, factor) in PLOTS.items():
        pairs = [evaluation.pair(index, quantity) for index in range(len(evaluation.frames))]
        if not any(pairs):
            continue
        # A frame without the label leaves no point, but its group keeps its colour in every plot.
        known = [pair or (np.array(np.nan), np.array(np.nan)) for pair in pairs]
        label, prediction = (
            factor * np.concatenate([np.ravel(pair[side]) for pair in known]) for side in (0, 1)
        )
        groups = [
            name or "other"
            for name, pair in zip(evaluation.groups, known, strict=True)
            for _ in range(np.size(pair[0]))
        ]
        plots[name] = figures.parity(
            label,
            prediction,
            quantity=words,
            unit=unit,
            label=evaluation.label,
            groups=groups if 1 < len(set(groups)) <= len(figures.PALETTE) else None,
        )
    return plots


def group_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the RMSE of each quantity in each group of frames; empty if there is one group."""
    rows = []
    for name, errors in evaluation.group_errors().items():
        row: dict[str, Any] = {"group": name or "other", "frames": evaluation.groups.count(name)}
        for quantity, (unit, _) in QUANTITIES.items():
            row[quantity] = errors.values.get(f"{quantity}_rmse_{unit}")
        rows.append(row)
    return rows


def error_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return MAE, RMSE and largest error of each quantity, and how many labels they rest on."""
    errors = evaluation.errors
    rows = []
    for quantity, (unit, _) in QUANTITIES.items():
        if f"{quantity}_mae_{unit}" not in errors.values:
            continue
        words, shown = describe(f"{quantity}_mae_{unit}")
        rows.append(
            {
                "quantity": words.removesuffix(" MAE"),
                "unit": shown,
                "mae": errors.values[f"{quantity}_mae_{unit}"],
                "rmse": errors.values[f"{quantity}_rmse_{unit}"],
                "largest": errors.values[f"{quantity}_max_{unit}"],
                "used": errors.used[quantity],
                "missing": errors.missing[quantity],
            }
        )
    return rows


def failures(evaluation: Evaluation) -> dict[str, list[str]]:
    """Return the sources of failed frames by their message."""
    found: dict[str, list[str]] = {}
    for index, message in evaluation.failures.items():
        found.setdefault(message, []).append(evaluation.frames[index].source)
    return found


def worst(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the frames with the largest force errors, else energy errors."""
    rows = [row for row in _frame_rows(evaluation) if row["status"] == "ok"]
    key = (
        "forces_rmse_meV_per_A"
        if any(row["forces_rmse_meV_per_A"] is not None for row in rows)
        else "energy_error_meV_per_atom"
    )
    return sorted(rows, key=lambda row: -abs(row[key] or 0.0))[:_WORST]


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide a number."""
    found = {}
    for name in ("mlip-suite", "torch", "ase", "numpy", "mace-torch", "chgnet", "e3nn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _frame_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    columns: Mapping[str, list[np.ndarray | None]] = {
        quantity: evaluation.differences(quantity) for quantity in QUANTITIES
    }
    rows = []
    for index, frame in enumerate(evaluation.frames):
        energy = columns["energy_per_atom"][index]
        row: dict[str, Any] = {
            "source": Path(frame.source).name,
            "formula": frame.atoms.get_chemical_formula(),
            "group": frame.info.get("group", ""),
            "atoms": len(frame),
            "status": evaluation.failures.get(index, "ok"),
            "energy_error_meV_per_atom": None if energy is None else 1e3 * float(energy),
        }
        for quantity, name in (("forces", "forces_rmse_meV_per_A"), ("stress", "stress_rmse_GPa")):
            part = summarise_frame(columns[quantity][index])
            row[name] = None if part is None else QUANTITIES[quantity][1] * part
        rows.append(row)
    return rows


def summarise_frame(difference: np.ndarray | None) -> float | None:
    """Return the root mean square of the known components of one frame."""
    if difference is None or not np.isfinite(difference).any():
        return None
    return float(np.sqrt(np.nanmean(np.square(difference))))


def _write_predictions(evaluation: Evaluation, path: Path) -> None:
    rows = _frame_rows(evaluation)
    for row, prediction in zip(rows, evaluation.predictions, strict=True):
        row["energy_eV"] = float(prediction["energy"]) if "energy" in prediction else None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["source"])
        writer.writeheader()
        writer.writerows(rows)


def _write_charges(evaluation: Evaluation, path: Path) -> None:
    """Write the charge of every atom, and its label where there is one."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "frame", "atom", "element", "charge_e", "label_e"])
        for index, frame in enumerate(evaluation.frames):
            charges = evaluation.predictions[index].get("charges")
            if charges is None:
                continue
            labels = frame.labels.get("charges", [""] * len(frame))
            for atom, row in enumerate(zip(frame.atoms.symbols, charges, labels, strict=True)):
                writer.writerow([Path(frame.source).name, index, atom, *row])

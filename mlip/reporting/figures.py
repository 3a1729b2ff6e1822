"""Parity plots and learning curves, in one colour-blind-safe look; no state outside a figure."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from mlip.reporting.labels import describe, split_of

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito, Color Universal Design (2008): distinct for every kind of colour vision."""
INK = "#1b2430"
"""Ink of text and axes; in inline SVG it becomes the colour of the page's text."""

_MARKERS = ("o", "s", "^", "D", "v", "P")
_MANY = 4000
_WIDE = 30.0  # ratio of errors from which they are drawn on a logarithmic axis
_DENSITY = LinearSegmentedColormap.from_list("density", ["#8fcaf0", "#0072B2", "#00486f"])
_PANELS = ("loss", "energy", "forces", "stress")


def parity(
    reference: np.ndarray,
    prediction: np.ndarray,
    *,
    quantity: str,
    unit: str,
    label: str,
    groups: Sequence[str] | None = None,
) -> Figure:
    """Draw predictions against references on equal axes, with MAE and RMSE in the corner.

    Args:
        reference: Values (any shape); NaN in either array leaves the point out.
        prediction: Values of the same shape and unit.
        quantity: What it is, as in the axis labels: ``energy``, ``force component``.
        unit: Unit of both axes, ``eV/atom``. Errors of eV-like units are printed in meV.
        label: Title: which potential on which data.
        groups: A name for each point, to colour by; without it many points become a density.

    Raises:
        ValueError: If the shapes differ.
    """
    reference, prediction = np.ravel(reference), np.ravel(prediction)
    if reference.shape != prediction.shape or (
        groups is not None and len(groups) != reference.size
    ):
        raise ValueError(
            f"parity of {quantity}: {reference.size} references, {prediction.size} "
            f"predictions, {len(groups or ())} groups; give one of each for each point"
        )
    keep = np.isfinite(reference) & np.isfinite(prediction)
    # Looks are given out before points are left out: a group looks the same in every plot of a set.
    looks = {name: i for i, name in enumerate(sorted(set(groups or ())))}
    names = None if groups is None else np.asarray(groups, dtype=object)[keep]
    reference, prediction = reference[keep], prediction[keep]
    figure = _figure(4.3, 4.3)
    axes = figure.add_subplot()
    _style(axes, label)
    axes.set_xlabel(f"Reference {quantity} ({unit})")
    axes.set_ylabel(f"Predicted {quantity} ({unit})")
    if reference.size == 0:
        axes.set(xticks=[], yticks=[], aspect="equal")
        _corner(axes, "nothing to compare", 0.5, 0.5, "center")
        return figure
    _equal_axes(axes, reference, prediction)
    _points(axes, reference, prediction, names, looks)
    factor, error_unit = (1000, f"m{unit}") if unit.startswith("eV") else (1, unit)
    error = factor * (prediction - reference)
    _corner(
        axes,
        f"MAE {_short(np.abs(error).mean())} {error_unit}\n"
        f"RMSE {_short(np.sqrt((error**2).mean()))} {error_unit}\n"
        f"{error.size:,} points".replace(",", "\u202f"),
        0.965,
        0.04,
        "right",
    )
    return figure


def learning_curves(rows: Sequence[Mapping[str, Any]], only: Sequence[str] = _PANELS) -> Figure:
    """Draw loss and errors against the epoch on log axes, one panel for each quantity.

    Args:
        rows: Rows of ``metrics.csv``: ``epoch`` and any of ``<split>/loss``,
            ``<split>/energy_per_atom_rmse_meV``, ...; empty cells are skipped, so sparse rows
            (one for training, one for validation) are fine.
        only: Panels wanted, of loss, energy, forces, stress; those without data are left out.
    """
    found = [panel for panel in panels(rows) if panel in only]
    columns = min(2, max(1, len(found)))
    lines = -(-max(1, len(found)) // columns)
    figure = _figure(4.5 * columns, 3.1 * lines)
    for index, panel in enumerate(found or ["loss"]):
        axes = figure.add_subplot(lines, columns, index + 1)
        _curves(axes, panel, rows)
    return figure


def histogram(values: np.ndarray, *, quantity: str, unit: str, title: str) -> Figure:
    """Draw how often values occur, with median and range above; the count is logarithmic.

    Args:
        values: Any shape; what is not finite is left out.
        quantity: What it is, as on the axis: ``energy``.
        unit: Its unit, empty for a number.
        title: Title.
    """
    values = np.ravel(values)[np.isfinite(np.ravel(values))]
    figure = _figure(4.3, 3.1)
    axes = figure.add_subplot()
    _style(axes, title)
    axes.set_xlabel(f"{quantity} ({unit})" if unit else quantity)
    if values.size == 0:
        axes.set(xticks=[], yticks=[])
        _corner(axes, "no values", 0.5, 0.5, "center")
        return figure
    axes.hist(values, bins=min(60, max(8, int(np.sqrt(values.size)))), color=PALETTE[0], log=True)
    axes.set_ylabel("count")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())
    text = f"median {np.median(values):.4g}, {values.min():.4g} to {values.max():.4g}, "
    text += f"{values.size:,} values".replace(",", "\u202f")
    axes.set_title(f"{title}\n", loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=8)
    axes.text(0.0, 1.03, text, transform=axes.transAxes, fontsize=9, color=INK)
    return figure


def comparison(errors: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Return bars of the mean error of each run, a panel a quantity, with a point a seed.

    Args:
        errors: Words of a quantity -> name of a run -> its errors.
    """
    figure = _figure(3.4 * max(len(errors), 1), 0.8 + 0.55 * max(map(len, errors.values())))
    axes = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
    for axis, (title, runs) in zip(axes, errors.items(), strict=True):
        for place, values in enumerate(runs.values()):
            colour = PALETTE[place % len(PALETTE)]
            if len(values):
                axis.barh(place, np.mean(values), color=colour, alpha=0.55, height=0.6)
                axis.plot(values, [place] * len(values), "o", color=colour, markersize=4)
        known = [value for values in runs.values() for value in values if value > 0]
        if known and max(known) > _WIDE * min(known):
            axis.set_xscale("log")
            axis.set_xlim(left=min(known) / 2)
        axis.set_yticks(range(len(runs)), list(runs))
        axis.invert_yaxis()
        _style(axis, title)
    return figure


def panels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which of loss, energy, forces, stress the rows hold anything to draw for."""
    return [panel for panel in _PANELS if _columns(panel, rows)]


def save(figure: Figure, path: str | Path, dpi: int = 200) -> Path:
    """Write a PNG on white; the folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=dpi, facecolor="white", metadata={"Software": None})
    return path


def svg(figure: Figure) -> Markup:
    """Return the figure as an inline ``<svg>`` that takes ink and font from the page around it."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mlip"}):
        figure.savefig(buffer, format="svg", transparent=True, dpi=200)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Names of namespaces are addresses; HTML needs none, and the page then holds no address at all.
    text = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'<svg([^>]*?) width="[^"]*pt"', r"<svg\1", text, count=1)
    text = re.sub(r'<svg([^>]*?) height="[^"]*pt"', r"<svg\1", text, count=1)
    text = re.sub(r"(font: [^']*?)'[^;\"]*", r"\1inherit", text)
    text = re.sub(r"font: ([^;\"]*?)([\d.]+px) inherit", r"font-size: \2", text)
    text = text.replace(INK, "currentColor").replace(
        '<text style="', '<text fill="currentColor" style="'
    )
    # Several figures share a page: their ids must not meet.
    salt = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'\bid="', f'id="{salt}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{salt}-", text)
    return Markup(text)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_alpha(0.5)
    axes.tick_params(colors=INK, labelsize=9, length=3, width=0.8)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    axes.grid(color=INK, alpha=0.12, linewidth=0.7)
    axes.set_axisbelow(True)


def _equal_axes(axes: Axes, reference: np.ndarray, prediction: np.ndarray) -> None:
    values = np.concatenate([reference, prediction])
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.5 * max(abs(high), 1e-3)
    limits = (float(low - margin), float(high + margin))
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.plot(limits, limits, color=INK, linewidth=1, alpha=0.6, zorder=1.5)


def _points(
    axes: Axes,
    reference: np.ndarray,
    prediction: np.ndarray,
    names: np.ndarray | None,
    looks: Mapping[str, int],
) -> None:
    many = reference.size > _MANY
    if names is None and many:
        span = (*axes.get_xlim(), *axes.get_ylim())
        axes.hexbin(
            reference,
            prediction,
            gridsize=90,
            bins="log",
            mincnt=1,
            extent=span,
            cmap=_DENSITY,
            linewidths=0,
            rasterized=True,
            zorder=2,
        )
        return
    style: dict[str, Any] = {
        "s": 8 if many else 16 if reference.size > 400 else 26,
        "linewidths": 0,
        "rasterized": reference.size > 800,
        "zorder": 2,
        "alpha": 0.5 if many else 0.55 if reference.size > 400 else 0.8,
    }
    if names is None:
        axes.scatter(reference, prediction, color=PALETTE[0], **style)
        return
    # The largest group first: a small group is then never hidden below it.
    groups, counts = np.unique(names.astype(str), return_counts=True)
    for group in groups[np.argsort(-counts, kind="stable")]:
        chosen = names.astype(str) == group
        axes.scatter(
            reference[chosen],
            prediction[chosen],
            color=PALETTE[looks[group] % len(PALETTE)],
            marker=_MARKERS[looks[group] % len(_MARKERS)],
            label=group,
            **style,
        )
    legend = axes.legend(
        loc="upper left",
        fontsize=9,
        frameon=False,
        labelcolor=INK,
        handletextpad=0.3,
        borderaxespad=0.2,
        markerscale=(30 / style["s"]) ** 0.5,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)


def _corner(axes: Axes, text: str, x: float, y: float, align: Any) -> None:
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        ha=align,
        va="bottom",
        fontsize=9.5,
        color=INK,
        linespacing=1.45,
    )


def _short(value: float) -> str:
    """Three significant digits, never an exponent for the sizes that errors have."""
    if value and not 1e-3 <= value < 1e5:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(value))))}f}" if value else "0"


def _curves(axes: Axes, panel: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = _columns(panel, rows)
    title, unit = ("Loss", "") if panel == "loss" or not columns else describe(columns[0])
    _style(axes, title)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(f"{title} ({unit})" if unit else title)
    for column in columns:
        split = split_of(column) or "run"
        color = {"train": PALETTE[4], "val": PALETTE[0], "test": PALETTE[1]}.get(split, PALETTE[2])
        epochs, values = _series(column, rows)
        axes.plot(
            epochs,
            values,
            color=color,
            linewidth=1.8,
            label=split,
            marker="o" if len(epochs) < 25 else None,
            markersize=3.5,
        )
    axes.set_yscale("log")
    _log_ticks(axes)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if columns:
        axes.legend(fontsize=9, frameon=False, labelcolor=INK, loc="upper right")


def _log_ticks(axes: Axes) -> None:
    """Plain numbers on a log axis; a range below a decade gets ticks at 2 and 5 as well."""
    low, high = axes.get_ylim()
    if low >= 1e-3 and high < 1e5:
        axes.yaxis.set_major_formatter("{x:g}")
    ticks = LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,))
    axes.yaxis.set_major_locator(ticks)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _columns(panel: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns to draw in a panel: the losses, or the RMSE (else MAE) of a quantity."""
    names = sorted({name for row in rows for name in row if _series(name, rows)[0].size})
    if panel == "loss":
        return [name for name in names if name.rpartition("/")[2] == "loss"]
    for kind in ("_rmse_", "_mae_"):
        found = [
            name
            for name in names
            if kind in name and name.rpartition("/")[2].startswith(panel) and "aligned" not in name
        ]
        if found:
            return found
    return []


def _series(column: str, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of a column; the last finite positive value of each epoch counts."""
    values: dict[float, float] = {}
    for row in rows:
        epoch, value = _float(row.get("epoch")), _float(row.get(column))
        if np.isfinite(epoch) and np.isfinite(value) and value > 0:
            values[epoch] = value
    return np.array(list(values)), np.array(list(values.values()))


def _float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")

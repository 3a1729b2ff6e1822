"""Figures say what they show; pages are whole, offline and escaped."""

from html.parser import HTMLParser

import numpy as np
import pytest

from mlip.reporting import figures
from mlip.reporting.html import number, render, write_page
from mlip.reporting.labels import describe

ROWS = [
    {"epoch": e, "train/loss": 1 / (e + 1), "val/loss": 1.2 / (e + 1),
     "val/forces_rmse_meV_per_A": 90 / (e + 1)}
    for e in range(5)
]  # fmt: skip


def texts(figure):
    return [
        text.get_text()
        for axes in figure.axes
        for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label)
    ]


def test_parity_says_quantity_unit_and_errors():
    reference = np.array([0.0, 1.0, np.nan])
    figure = figures.parity(
        reference, reference + 0.01, quantity="energy", unit="eV/atom", label="x"
    )
    found = " ".join(texts(figure))
    assert "Reference energy (eV/atom)" in found
    assert "Predicted energy (eV/atom)" in found
    assert "MAE 10.0 meV/atom" in found
    assert "2 points" in found
    assert figure.axes[0].get_xlim() == figure.axes[0].get_ylim()


def test_parity_of_nothing_and_of_unequal_arrays():
    figure = figures.parity(
        np.array([np.nan]), np.array([1.0]), quantity="stress", unit="GPa", label="x"
    )
    assert "MAE" not in " ".join(texts(figure))
    with pytest.raises(ValueError, match="2 references, 1 predictions"):
        figures.parity(np.zeros(2), np.zeros(1), quantity="energy", unit="eV", label="x")


def test_a_group_looks_the_same_in_every_plot():
    names = ["a", "b", "b", "c"]
    colours = []
    for missing in (0, 3):
        values = np.arange(4.0)
        values[missing] = np.nan
        figure = figures.parity(
            values, values, quantity="energy", unit="eV", label="x", groups=names
        )
        axes = figure.axes[0]
        colours.append({c.get_label(): tuple(c.get_facecolor()[0]) for c in axes.collections})
    assert colours[0]["b"] == colours[1]["b"]
    assert "a" not in colours[0]
    assert "c" not in colours[1]


def test_learning_curves_have_a_panel_for_each_quantity_with_data():
    assert figures.panels(ROWS) == ["loss", "forces"]
    assert len(figures.learning_curves(ROWS).axes) == 2


def test_inline_drawings_share_a_page():
    one = figures.parity(np.arange(3.0), np.arange(3.0), quantity="energy", unit="eV", label="a")
    two = figures.parity(
        np.arange(3.0), np.arange(3.0) + 1, quantity="energy", unit="eV", label="b"
    )
    first, second = figures.svg(one), figures.svg(two)
    assert first.startswith("<svg")
    assert "http" not in first
    ids = [{part.split('"')[0] for part in text.split('id="')[1:]} for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0123456, "0.0123"), (1234567, "1\u202f234\u202f567"), (-2.5, "\u22122.50"),
     (None, "\u2013"), (float("nan"), "\u2013"), (1e-9, "1.00e\u221209"),
     ("text", "text"), (0, "0")],
)  # fmt: skip
def test_numbers(value, shown):
    assert number(value) == shown


def test_metric_names_in_words():
    assert describe("val/energy_per_atom_rmse_meV") == ("Energy RMSE", "meV/atom")
    assert describe("forces_mae_meV_per_A") == ("Forces MAE", "meV/Å")
    assert describe("stress_max_GPa") == ("Stress largest error", "GPa")


class Balanced(HTMLParser):
    VOID = ("meta", "link", "br", "img", "input", "hr", "path", "use", "circle", "line", "rect")

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_pages_are_whole_escaped_and_offline(tmp_path):
    page = write_page(
        tmp_path / "deep" / "page.html",
        "evaluation.html",
        label="<script>alert(1)</script>",
        frames=2,
        failures={"boom": ["x#1"]},
        rows=[],
        groups=[],
        images={},
        worst=[],
        provenance={"torch": "2"},
    )
    text = page.read_text()
    assert "<script>alert" not in text
    assert "http" not in text
    assert "boom" in text
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_a_name_that_is_missing_is_an_error():
    with pytest.raises(Exception, match="label"):
        render("evaluation.html")

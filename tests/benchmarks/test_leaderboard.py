"""Boards, the page and the table, from result files only."""

import re

import pytest

from mlip.benchmarks import report
from mlip.benchmarks.leaderboard import boards
from mlip.benchmarks.parity import parity
from mlip.benchmarks.record import Record
from mlip.benchmarks.results import read_result, write_results
from mlip.benchmarks.task import read_card
from mlip.paths import content

CARD = read_card(content("benchmarks") / "surface_energy" / "card.yaml")
CASES = {
    "Li/100": (0.46, "smoke", "train"),
    "Li/111": (0.54, "smoke", "test"),
    "Li2O/110@0.25": (0.91, "full", ""),
}


def result(folder, name, values, functional="PBE", label=None, control=False):
    records = []
    for case, value in values.items():
        reference, tier, split = CASES[case]
        failed = isinstance(value, str)
        tags = {"scored": True, "tiers": {"static": tier, "relaxed": "full"}, "source_split": split}
        records.append(
            Record(
                task="surface_energy",
                case=case,
                mode="static",
                calculator=name,
                status=value if failed else "ok",
                value=None if failed else value,
                detail="why <b>it</b> failed" if failed else "",
                input_hash=name + case,
                reference=reference,
                uncertainty=0.05,
                unit="J/m²",
                atoms=6,
                tags=tags,
            )
        )
    card = {
        "label": label or name,
        "functional": functional,
        "training_sets": ["MPtrj"],
        "weights_licence": "MIT",
        "control": control,
    }
    return write_results(folder / f"{name}.json", CARD, {"name": name, "card": card}, records)


def test_rank_follows_the_penalised_error_and_the_functional(tmp_path):
    good = dict.fromkeys(CASES, 0.6)
    paths = [
        result(tmp_path, "evasive", {"Li/100": 0.46, "Li/111": "nan", "Li2O/110@0.25": "error"}),
        result(tmp_path, "honest", good),
        result(tmp_path, "other", {k: v[0] for k, v in CASES.items()}, functional="r2SCAN"),
        result(tmp_path, "zero", dict.fromkeys(CASES, 0.0), functional="none", control=True),
    ]
    smoke, full = boards([read_result(path) for path in paths])
    assert (smoke.tier, full.tier) == ("smoke", "full")
    assert [(row.name, row.rank) for row in full.rows] == [
        ("honest", 1),
        ("evasive", 2),
        ("other", None),
        ("zero", None),
    ]
    assert full.rows[1].scores.mae < full.rows[0].scores.mae
    assert full.rows[2].note == "r2SCAN against PBE"
    assert len(smoke.cases) == 2


def test_a_case_not_run_counts_as_failed_and_smoke_runs_stay_off_the_full_board(tmp_path):
    paths = [
        result(tmp_path, "whole", dict.fromkeys(CASES, 0.5)),
        result(tmp_path, "partial", {"Li/100": 0.5, "Li2O/110@0.25": 0.9}),
        result(tmp_path, "smoke", {"Li/100": 0.5, "Li/111": 0.5}),
    ]
    smoke, full = boards([read_result(path) for path in paths])
    assert {row.name for row in full.rows} == {"whole", "partial"}
    row = next(row for row in full.rows if row.name == "partial")
    assert (row.scores.n_ok, row.scores.n) == (2, 3)
    assert row.records["Li/111"].status == "skipped"
    assert len(smoke.rows) == 3


def test_removing_one_model_moves_no_other(tmp_path):
    """Scores are on the scale of the references, not of the roster."""
    names = {"good": 0.6, "bad": 0.1, "worse": -0.5}
    paths = {name: result(tmp_path, name, dict.fromkeys(CASES, v)) for name, v in names.items()}
    whole = boards([read_result(path) for path in paths.values()])
    for left_out in names:
        rest = boards([read_result(path) for name, path in paths.items() if name != left_out])
        for before, after in zip(whole, rest, strict=True):
            scores = {row.name: row.scores for row in before.rows if row.name != left_out}
            assert scores == {row.name: row.scores for row in after.rows}
    assert whole[0].rows[0].scores.skill > 0.7 > 0 > whole[0].rows[-1].scores.skill


def test_agreement_against_the_reference_raises_an_alarm(tmp_path):
    values = {"Li/100": 1.46, "Li/111": 0.9, "Li2O/110@0.25": 0.92}
    paths = [
        result(tmp_path, "a", values),
        result(tmp_path, "b", {**values, "Li/100": 1.50, "Li/111": 0.2}),
        result(tmp_path, "c", {**values, "Li/100": 1.40}),
        result(tmp_path, "other", {**values, "Li/100": 0.46}, functional="r2SCAN"),
    ]
    assert [board.alarms for board in boards([read_result(p) for p in paths])] == [["Li/100"]] * 2
    assert boards([read_result(path) for path in paths[:2]])[0].alarms == []  # two are no quorum
    page, table = report(paths, tmp_path / "out")
    assert "agree against the reference" in page.read_text(encoding="utf-8")
    assert "agree against the reference: Li/100." in table.read_text(encoding="utf-8")


def test_held_out_slabs_are_scored_apart(tmp_path):
    board = boards([read_result(result(tmp_path, "x", {"Li/100": 0.46, "Li/111": 0.44}))])[0]
    groups = {group.name: group.scores for group in board.rows[0].groups}
    assert groups["Li · in the training file"].mae == pytest.approx(0.0)
    assert groups["Li · held out"].mae == pytest.approx(0.1)


def test_page_and_table_show_the_same_numbers_and_need_no_network(tmp_path):
    paths = [
        result(tmp_path, "x", {"Li/100": 0.4, "Li/111": 0.5}, label="<script>X</script>"),
        result(tmp_path, "y", {"Li/100": 0.4, "Li/111": "not_converged"}, functional="r2SCAN"),
    ]
    page, table = report(paths, tmp_path / "out")
    html, text = page.read_text(encoding="utf-8"), table.read_text(encoding="utf-8")
    assert "<script>X" not in html
    assert "<b>it</b>" not in html
    assert "why &lt;b&gt;it&lt;/b&gt; failed" in html
    assert "r2SCAN ≠ PBE" in html
    assert "held out" in html
    for number in ("0.050", "2/2", "1/2", "0.300"):
        assert number in html
        assert number in text
    links = re.findall(r"""(?:src|href)=["']?(https?:[^"' >]+)""", html)
    assert all(link.startswith("https://doi.org/") for link in links)
    assert "@import" not in html
    assert "fetch(" not in html


def test_a_tier_that_the_next_one_holds_has_no_section_of_its_own(tmp_path):
    whole = result(tmp_path, "whole", dict.fromkeys(CASES, 0.5))
    table = report([whole], tmp_path / "a")[1].read_text(encoding="utf-8")
    assert re.findall(r"static, (\w+) tier", table) == ["full"]
    part = result(tmp_path, "part", {"Li/100": 0.5, "Li/111": 0.5})
    table = report([whole, part], tmp_path / "b")[1].read_text(encoding="utf-8")
    assert re.findall(r"static, (\w+) tier", table) == ["smoke", "full"]


def test_report_is_a_function_of_the_files(tmp_path):
    paths = [result(tmp_path, "x", {"Li/100": 0.4})]
    first = [path.read_bytes() for path in report(paths, tmp_path / "a")]
    assert first == [path.read_bytes() for path in report(paths, tmp_path / "b")]
    with pytest.raises(ValueError, match="no results yet"):
        report([], tmp_path)


def test_parity_places_points_on_the_diagonal_where_they_agree(tmp_path):
    values = {"Li/100": 0.46, "Li/111": 0.0}
    plot = parity(boards([read_result(result(tmp_path, "x", values))])[0])
    points = plot.series[0][2]
    assert points[0].x == pytest.approx(points[0].y)
    assert points[1].y < points[1].x
    assert points[1].held_out
    assert not points[0].held_out
    assert plot.ticks[0][1] == "0.0"
    assert all(plot.margin - 1e-6 <= at <= plot.size for at, _ in plot.ticks)


def test_published_pages_are_up_to_date(tmp_path):
    """What is in benchmarks/ is what the recorded results give; the look may change freely."""
    root = content("benchmarks")
    written = report(sorted(root.glob("*/results/*.json")), tmp_path)
    for path in written:
        published = (root / path.name).read_text(encoding="utf-8")
        fresh = path.read_text(encoding="utf-8")
        assert body(fresh) == body(published), "run: mlip benchmark report"


def body(text):
    return text.split("<main>")[-1].split("</main>")[0]

"""The command: comma lists, near matches before any work, files written."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from mlip.benchmarks import cli_run
from mlip.benchmarks.sweep import plan_sweep
from mlip.config import options


def console():
    return Console(record=True, width=160, file=io.StringIO())


def test_cartesian_product_with_page_and_table(tmp_path):
    screen = console()
    written = cli_run(
        [
            "task=surface_energy,grain_boundary_energy",
            "calculator=zero,raising",
            "limit=2",
            "progress=false",
            f"output={tmp_path}/a=b, c",
        ],
        screen,
    )
    folder = tmp_path / "a=b, c"
    assert written == [folder / "leaderboard.html", folder / "LEADERBOARD.md"]
    for task in ("surface_energy", "grain_boundary_energy"):
        for calculator, ok in (("zero", 2), ("raising", 0)):
            path = folder / task / calculator / "result.json"
            records = json.loads(path.read_text())["records"]
            assert len(records) == 2
            assert sum(r["status"] == "ok" for r in records) == ok
    text = screen.export_text()
    assert "surface_energy · zero: 2 cases, 16 atoms, about 1 s by earlier runs" in text
    assert "surface_energy · raising: 2 cases, 16 atoms; no time known for raising" in text
    assert "0/2" in text  # coverage is printed
    assert "2/2" in text
    assert "leaderboard.html" in text
    assert "| Always failing (control) | none | 0/2 |" in written[1].read_text()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("task=surface_enrgy", "there is no task 'surface_enrgy'; did you mean 'surface_energy'"),
        (
            "calculator=zero,chgnet_0_3",
            "there is no calculator 'chgnet_0_3'; did you mean 'chgnet_0_",
        ),
        ("tiers=full", "unknown config key 'tiers'; did you mean 'tier'"),
        ("calculator=", "calculator= is empty"),
        ("surface_energy", "not of the form key=value"),
        ("calculator=checkpoint", "checkpoint is null: give the file to score"),
        ("calculator=zero,zero", "name each calculator once"),
    ],
)
def test_wrong_input_is_answered_before_any_work(tmp_path, override, text):
    with pytest.raises(ValueError, match=text):
        cli_run(["calculator=zero", override, f"output={tmp_path / 'out'}"], console())
    assert not (tmp_path / "out").exists()


def test_missing_checkpoint_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'nowhere\.safetensors' does not exist"):
        cli_run(["calculator=checkpoint", "checkpoint=nowhere.safetensors"], console())


def test_damaged_and_foreign_checkpoints_are_refused_before_work(tmp_path):
    good = tmp_path / "good.safetensors"
    save_file({"x": np.zeros(3)}, good, metadata={"mlip": "{}"})
    foreign, cut = tmp_path / "foreign.safetensors", tmp_path / "cut.safetensors"
    save_file({"x": np.zeros(3)}, foreign)
    cut.write_bytes(good.read_bytes()[:-10])
    for path in (foreign, cut):
        with pytest.raises(ValueError, match="truncated, or no mlip checkpoint"):
            plan_sweep(["calculator=checkpoint", f"checkpoint={path}"])


def test_a_checkpoint_fills_its_own_card(tmp_path):
    path = tmp_path / "run" / "best.safetensors"
    path.parent.mkdir()
    header = {
        "card": {"data": "mlearn_li", "level_of_theory": {"functional": "PBE"}},
        "config": {"precision": "float32", "elements": ["Li"]},
    }
    save_file({"x": np.zeros((3, 4))}, path, metadata={"mlip": json.dumps(header)})
    card = plan_sweep(["calculator=checkpoint", f"checkpoint={path}"])[0].calculator["card"]
    assert card["label"] == "run/best"
    assert (card["functional"], card["training_sets"]) == ("PBE", ["mlearn_li"])
    assert (card["parameters"], card["dtype"], card["elements"]) == (12, "float32", ["Li"])


def test_all_leaves_out_controls_and_what_is_not_given(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIP_ENVIRONMENTS", str(tmp_path))
    pytest.importorskip("chgnet")
    screen = console()
    plans = plan_sweep(["task=all", "calculator=all"], screen)
    names = {(item.task.name, item.calculator["name"]) for item in plans}
    assert {name for _, name in names} == {"chgnet_0_2_0", "chgnet_0_3_0", "chgnet_r2scan"}
    assert len(names) == 3 * len(options("task"))
    text = " ".join(screen.export_text().split())
    assert "left out checkpoint" in text
    assert "left out mattersim_5m" in text  # not installed here, or to be downloaded


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mlip.benchmarks.environments.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mlip-suite\[chgnet\]'"):
        plan_sweep(["calculator=chgnet_0_3_0"])


def test_scoring_code_imports_no_torch():
    code = (
        "import sys, mlip.properties.surface, mlip.properties.grain_boundary, mlip.benchmarks, "
        "mlip.benchmarks.worker; print([m for m in ('torch', 'e3nn', 'lightning') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

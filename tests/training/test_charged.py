"""Trainings of potentials with charges: from a 2g start, side by side, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlip import MlipCalculator, config
from mlip.data.card import load_frames
from mlip.training.charge_labels import require_charges
from mlip.training.command import cli_run
from mlip.training.run import run
from mlip.training.setup import prepare

SMALL = [
    "experiment=silver_trimer", "model.backbone.channels=8", "model.backbone.max_l=1", "threads=1",
    "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=64",
]  # fmt: skip
pytestmark = pytest.mark.native


def test_a_second_generation_potential_starts_one_of_the_fourth(tmp_path):
    first = run(config.compose("train", [*SMALL, "model=2g", f"output={tmp_path / 'first'}"]))
    errors = json.loads((first / "summary.json").read_text())["errors"]["test"]
    assert "forces_rmse_meV_per_A" in errors
    assert "charges_rmse_me" not in errors
    words = [*SMALL, f"start={first / 'best.safetensors'}", f"output={tmp_path / 'second'}"]
    second = run(config.compose("train", words))
    errors = json.loads((second / "summary.json").read_text())["errors"]["test"]
    assert errors["charges_rmse_me"] < 500
    atoms = load_frames("xtb_silver_trimer", "test")[0].atoms
    atoms.info["total_charge"] = -1
    atoms.calc = MlipCalculator(second / "best.safetensors", device="cpu")
    assert atoms.get_charges().sum() == pytest.approx(-1)


def test_a_sweep_ends_with_its_runs_side_by_side(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mlip train"])
    cli_run(["-m", *SMALL, "model=2g,3g", "seed=1,2", f"hydra.sweep.dir={tmp_path}"])
    rows = (tmp_path / "comparison.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["model=2g"] * 2 + ["model=3g"] * 2
    page = (tmp_path / "comparison.html").read_text()
    assert "model=3g" in page
    assert " ± " in page
    assert "comparison.html" in capsys.readouterr().out


def test_charges_to_learn_must_fit_the_frames():
    found = prepare(config.compose("train", SMALL))
    frames = load_frames("xtb_silver_trimer", "val")
    require_charges(frames, found.potential, learned=True)
    lost = [replace(f, labels={k: v for k, v in f.labels.items() if k != "total_charge"})
            for f in frames]  # fmt: skip
    with pytest.raises(ValueError, match=r"60 of 60 frames state no total charge .*#0"):
        require_charges(lost, found.potential, learned=False)
    wrong = [replace(frames[2], labels={**frames[2].labels, "charges": np.full(3, 0.5)})]
    with pytest.raises(ValueError, match=r"add up to \+1\.500 e and its total charge is \+1 e"):
        require_charges([*frames, *wrong], found.potential, learned=True)
    require_charges([*frames, *wrong], found.potential, learned=False)

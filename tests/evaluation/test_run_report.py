"""The page of a run holds its errors, curves, data, config and how to go on."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip.data.frame import Frame
from mlip.evaluation.evaluate import evaluate
from mlip.evaluation.run_report import write_run_report

SUMMARY = {
    "data": "copper",
    "title": "Copper & <others>",
    "licence": "MIT",
    "level_of_theory": None,
    "frames": {"train": 8, "val": 2, "test": 3},
    "epochs": 5,
    "best_epoch": 4,
    "timing": {"seconds": 12.0, "threads": 1, "structures_per_second": 3.3},
    "references": {"Cu": -3.5},
    "notes": ["one frame has no stress"],
}
HISTORY = [{"epoch": e, "val/loss": 1 / (e + 1)} for e in range(5)]


def evaluation(shift):
    frames = []
    for seed in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        labels = {
            "energy": np.asarray(atoms.get_potential_energy() + shift * len(atoms)),
            "forces": atoms.get_forces(),
        }
        atoms.calc = None
        frames.append(Frame(atoms, labels, f"cu.extxyz#{seed}"))
    return evaluate(EMT(), frames, label="EMT", progress=False)


@pytest.mark.parametrize("history", [HISTORY, []])
def test_the_page(history, tmp_path):
    (tmp_path / "best.safetensors").touch()
    page = write_run_report(
        tmp_path,
        config_yaml="model: 2g",
        history=history,
        evaluations={"test": evaluation(0.004), "val": evaluation(0.002)},
        summary=SUMMARY,
    )
    text = page.read_text()
    assert "http" not in text
    assert "Errors on the 3 test frames" in text
    assert "4.00" in text
    assert "Errors on the 3 val frames" in text
    assert "2.00" in text
    assert "Copper &amp; &lt;others&gt;" in text
    assert "one frame has no stress" in text
    assert "model: 2g" in text
    assert "MlipCalculator(" in text
    assert ("Learning curves" in text) is bool(history)


def test_errors_on_validation_frames_are_said_to_be_flattering(tmp_path):
    page = write_run_report(
        tmp_path,
        config_yaml="",
        history=HISTORY,
        evaluations={"val": evaluation(0.0)},
        summary=SUMMARY,
    )
    assert "a little too good" in page.read_text()

"""The lithium data of the demo: values as in the source, and the right sign of the stress."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from mlip.data.card import load_frames
from mlip.data.checks import check_frames
from mlip.units import GPA_PER_EV_A3

DATASETS = Path(__file__).parents[2] / "datasets"


@pytest.fixture(scope="module")
def train():
    return load_frames("mlearn_li", "train")


def test_the_first_frame_is_the_text_of_the_source(train):
    with gzip.open(DATASETS / "mlearn_li" / "train.extxyz.gz", "rt") as handle:
        atoms, comment, row = (handle.readline() for _ in range(3))
    frame = train[0]
    assert len(frame) == int(atoms)
    raw = "2.02804759 2.36756035 4.72503139 -0.05211401 -0.29082961 0.60967551"
    assert f'virial_stress_raw="{raw}"' in comment
    # kbar, positive under compression, order xx yy zz xy yz xz
    expected = np.array([
        [2.02804759, -0.05211401, 0.60967551],
        [-0.05211401, 2.36756035, -0.29082961],
        [0.60967551, -0.29082961, 4.72503139],
    ]) * -0.1 / GPA_PER_EV_A3  # fmt: skip
    np.testing.assert_allclose(frame.labels["stress"], expected, rtol=1e-13)
    assert frame.labels["energy"] == -98.30410711
    words = [float(word) for word in row.split()[1:]]
    np.testing.assert_array_equal(frame.atoms.positions[0], words[:3])
    np.testing.assert_array_equal(frame.labels["forces"][0], words[3:])
    np.testing.assert_array_equal(frame.atoms.cell.array, np.eye(3) * 10.280451)
    assert frame.info["group"] == "Vacancy"


@pytest.mark.parametrize("name", ["mlearn_li", "mlearn_mo", "mlearn_ge", "mlearn_ni", "mlearn_cu"])
def test_compressed_cells_have_negative_stress(name):
    split = "test" if name in ("mlearn_ni", "mlearn_cu") else "train"
    frames = [f for f in load_frames(name, split) if f.info["group"] == "Elastic"]
    volume = np.array([f.atoms.get_volume() / len(f) for f in frames])
    normal = np.array([np.trace(f.labels["stress"]) / 3 for f in frames])
    assert np.corrcoef(volume, normal)[0, 1] > 0.9
    assert normal[volume.argmin()] < 0
    assert normal[volume.argmin()] < normal[volume.argmax()]


def test_the_stress_is_the_derivative_of_the_energy():
    """Bulk moduli from d(stress)/d(volume): the unit of the stress is right, not only its sign."""
    for name, reference in (("mlearn_li", 13.9), ("mlearn_mo", 262.0)):
        frames = [f for f in load_frames(name, "train") if f.info["group"] == "Elastic"]
        volume = np.array([f.atoms.get_volume() / len(f) for f in frames])
        normal = np.array([np.trace(f.labels["stress"]) / 3 for f in frames])
        slope = np.polyfit(volume, normal, 1)[0]
        modulus = slope * volume.mean() * GPA_PER_EV_A3
        assert modulus == pytest.approx(reference, rel=0.25), name


def test_everything_is_finite_and_nothing_is_found(train):
    for frame in train:
        assert all(np.isfinite(values).all() for values in frame.labels.values())
    (copies,) = check_frames(train, required=("energy", "forces", "stress"), elements=["Li"])
    assert copies.severity == "note"
    assert "structures occur turned, shifted or in another cell" in copies.message


def test_the_groups_are_those_of_the_paper(train):
    groups = [frame.info["group"] for frame in train]
    assert {name: groups.count(name) for name in set(groups)} == {
        "AIMD-NVT": 172, "Elastic": 22, "Surface": 11, "Vacancy": 36,
    }  # fmt: skip

"""Every block of the README runs, in order, as a user would paste it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from mlip.data.card import load_frames

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.DOTALL)
pytestmark = [pytest.mark.mace, pytest.mark.chgnet]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    images = []
    for frame in load_frames("mlearn_li", "test"):
        atoms = frame.atoms.copy()
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=float(frame.labels["energy"]),
            forces=frame.labels["forces"],
            stress=frame.labels["stress"],
        )
        images.append(atoms)
    ase.io.write(folder / "my_interface.extxyz", images)
    return folder


@pytest.mark.parametrize(
    ("language", "block"), BLOCKS, ids=[f"block{i}" for i in range(len(BLOCKS))]
)
def test_block_runs(language, block, folder):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    commands = (
        [["bash", "-euo", "pipefail", "-c", block]]
        if language == "bash"
        else [[sys.executable, "-c", block]]
    )
    for command in commands:
        result = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]


def test_there_are_blocks():
    assert len(BLOCKS) >= 4

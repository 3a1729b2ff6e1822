"""The doctor on long files: bounded memory, damage after good frames, and a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlip.cli import main
from mlip.data.card import load_frames
from mlip.data.doctor import doctor
from mlip.data.frame import Frame
from mlip.data.survey import survey
from mlip.data.write_extxyz import to_extxyz

MEASURE = """
import resource, sys
from mlip.data.doctor import doctor
found = doctor(sys.argv[1], "ase")
print(sum(found.frames.values()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write(path, copies):
    """Write real frames many times over, each copy shifted so that no two are equal."""
    frames = load_frames("mptrj", "test")
    random = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(copies):
            for frame in frames:
                atoms = frame.atoms.copy()
                atoms.positions += random.normal(scale=0.01, size=atoms.positions.shape)
                file.write(to_extxyz(Frame(atoms, frame.labels)))
    return path


def peak(path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    frames, kilobytes = map(int, done.stdout.split()[-2:])
    return frames, kilobytes


def test_memory_grows_by_less_than_a_kilobyte_a_frame(tmp_path):
    few, base = peak(write(tmp_path / "few.extxyz", 10))
    many, top = peak(write(tmp_path / "many.extxyz", 60))
    assert many - few == 5000
    # 32 kB of every frame of 30 atoms in memory would be 140 MB more. Room for the allocator.
    assert (top - base) * 1024 / (many - few) < 2048


def test_a_digest_is_small():
    looked = survey(load_frames("mptrj", "test"))
    sizes = [deep_size(digest) for digest in looked.digests]
    assert max(sizes) < 1024


def deep_size(digest):
    """Bytes of a digest without what is shared between digests."""
    own = (getattr(digest, name) for name in digest.__slots__ if name not in SHARED)
    return sys.getsizeof(digest) + sum(
        sys.getsizeof(value) + (sum(map(sys.getsizeof, value)) if isinstance(value, tuple) else 0)
        for value in own
    )


SHARED = ("file", "composition", "labels", "keys", "info", "pair")


def test_what_stands_before_the_damage_is_checked(tmp_path):
    path = write(tmp_path / "a.extxyz", 1)
    path.write_bytes(path.read_bytes()[:-100])
    found = doctor(path, "ase")
    assert found.frames == {"file": 99}
    assert found.exit_code == 1
    (message,) = [f.message for f in found.findings if f.severity == "error"]
    assert "a.extxyz#99 (line " in message


COMMAND = "import sys; from mlip.cli import main; main(sys.argv[1:])"


def test_a_killed_doctor_goes_on_where_it_stopped(tmp_path):
    path, folder = write(tmp_path / "long.extxyz", 3), tmp_path / "out"
    arguments = ["data", "doctor", str(path), "units=ase", "reference=chgnet_0_3_0", "frames=14"]
    arguments.append(f"output={folder}")
    journal = folder / "reference.jsonl"
    run = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 120
    while lines(journal) < 4 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (folder / "doctor.html").exists()
    kept = journal.read_bytes()[: journal.read_bytes().rfind(b"\n") + 1]
    assert 4 <= kept.count(b"\n") < 15
    with journal.open("ab") as file:
        file.write(b'{"frame": 13, "lab')  # a line that the kill cut off
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True,
        check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert "correlation with CHGNet 0.3.0" in done.stdout, done.stderr
    whole = journal.read_bytes()
    assert whole.startswith(kept)
    entries = [json.loads(line) for line in whole.splitlines()[1:]]
    assert [entry["frame"] for entry in entries] == list(range(14))
    assert "CHGNet 0.3.0" in (folder / "doctor.html").read_text()


def test_the_journal_of_other_work_is_refused(tmp_path, capsys):
    path = write(tmp_path / "a.extxyz", 1)
    arguments = ["data", "doctor", str(path), "units=ase", "reference=lennard_jones"]
    main([*arguments, "frames=3", f"output={tmp_path}"])
    with pytest.raises(SystemExit):
        main([*arguments, "frames=4", f"output={tmp_path}"])
    assert "reference.jsonl is from other work (frames differ)" in capsys.readouterr().err


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

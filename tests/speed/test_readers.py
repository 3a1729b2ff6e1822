"""Reading OMat24's and MPtrj's files, beside ASE's database and ijson on the same files."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import ase
import ase.db
import ijson
import pytest

from mlip.data.json_stream import stream
from mlip.data.readers import read

pytestmark = pytest.mark.speed

spec = importlib.util.spec_from_file_location(
    "real", Path(__file__).parents[1] / "data" / "readers" / "real.py"
)
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)

MEGABYTES = int(os.environ.get("MLIP_SPEED_MEGABYTES", "300"))
REPEATS = 3
MEMORY = """
import resource, sys
from mlip.data.readers import read
count = sum(1 for _ in read(sys.argv[1]))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def best(count):
    """Return the shortest of a few times, and the number counted."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        number = count()
        times.append(time.perf_counter() - start)
    return min(times), number


def test_aselmdb(tmp_path, record):
    frames = real.frames() * 20
    rows = [real.row(frame, number) for number, frame in enumerate(frames, 1)]
    path = real.write_aselmdb(tmp_path / "data.aselmdb", rows)

    def theirs(atoms):
        base = ase.db.connect(path, type="aselmdb", readonly=True, use_lock_file=False)
        count = sum(1 for row in base.select() if not atoms or row.toatoms())
        base.close()
        return count

    ours, number = best(lambda: sum(1 for _ in read(path)))
    rows_only, same = best(lambda: theirs(False))
    whole, _ = best(lambda: theirs(True))
    assert number == same == len(frames)
    peer = f"ase.db {ase.__version__}"
    print(f"\n{number / ours:.0f} frames/s; {number / whole:.0f}, {number / rows_only:.0f}")
    keywords = {"unit": "x", "target": 5.0, "better": "higher", "threads": 1}
    record("read aselmdb", whole / ours, peer=f"{peer} select + toatoms", **keywords)
    record("read aselmdb, beside select()", rows_only / ours, peer=f"{peer} rows", **keywords)


def write_big(path):
    records = [json.dumps(real.mptrj_record(frame)) for frame in real.frames()]
    number = size = 0
    with path.open("w") as handle:
        handle.write("{")
        while size < MEGABYTES * 1e6:
            parts = [f'"mp-{number}-0-{k}": {records[(number + k) % len(records)]}'
                     for k in range(10)]  # fmt: skip
            text = f'{", " if number else ""}"mp-{number}": {{{", ".join(parts)}}}'
            handle.write(text)
            size += len(text)
            number += 1
        handle.write("}")
    return number * 10


def test_mptrj(tmp_path, record):
    path = tmp_path / "mptrj.json"
    frames = write_big(path)

    def theirs():
        with path.open("rb") as handle:
            return sum(len(value) for _, value in ijson.kvitems(handle, "", use_float=True))

    ours, number = best(lambda: sum(1 for _ in stream(path, 2)))
    peer, same = best(theirs)
    whole, read_back = best(lambda: sum(1 for _ in read(path)))
    assert number == same == read_back == frames
    rate = path.stat().st_size / 1e6
    print(f"\n{rate / ours:.0f} MB/s records, {rate / whole:.0f} frames; ijson {rate / peer:.0f}")
    keywords = {"unit": "x", "target": 5.0, "better": "higher", "threads": 1}
    name = f"ijson {ijson.backend}"
    record("parse MPtrj JSON to records", peer / ours, peer=name, **keywords)
    record("read MPtrj JSON to frames, ijson to records", peer / whole, peer=name, **keywords)
    shown = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    count, memory = shown.stdout.split()
    assert int(count) == frames
    record(
        f"peak memory, MPtrj JSON of {MEGABYTES} MB", float(memory), unit="MB", target=1000.0,
        better="lower", peer="none", threads=1,
    )  # fmt: skip

"""Reading OMat24's and MPtrj's files, beside ASE's database and ijson on the same files."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import ase
import ase.db
import ijson
import numpy as np
import pytest
from ase.data import atomic_numbers

from mlip.data.json_stream import stream
from mlip.data.readers import read

pytestmark = pytest.mark.speed

spec = importlib.util.spec_from_file_location(
    "real", Path(__file__).parents[1] / "data" / "readers" / "real.py"
)
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)

MEGABYTES = int(os.environ.get("MLIP_SPEED_MEGABYTES", "300"))
ROUNDS = 5
MEMORY = """
import resource, sys
from mlip.data.readers import read
count = sum(1 for _ in read(sys.argv[1]))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def ratio(ours, theirs):
    """Return the median ratio of CPU seconds, in rounds of turns, and ours; both count the same."""
    ratios, seconds = [], []
    for _ in range(ROUNDS):
        spent, counts = [], []
        for count in (ours, theirs):
            start = time.process_time()
            counts.append(count())
            spent.append(time.process_time() - start)
        assert counts[0] == counts[1]
        ratios.append(spent[1] / spent[0])
        seconds.append(spent[0])
    return statistics.median(ratios), statistics.median(seconds)


def test_aselmdb(tmp_path, record):
    frames = real.frames() * 20
    rows = [real.row(frame, number) for number, frame in enumerate(frames, 1)]
    path = real.write_aselmdb(tmp_path / "data.aselmdb", rows)

    def theirs(atoms):
        base = ase.db.connect(path, type="aselmdb", readonly=True, use_lock_file=False)
        count = sum(1 for row in base.select() if not atoms or row.toatoms())
        base.close()
        return count

    def ours():
        return sum(1 for _ in read(path))

    whole, seconds = ratio(ours, lambda: theirs(True))
    rows_only, _ = ratio(ours, lambda: theirs(False))
    print(f"\n{len(frames) / seconds:.0f} frames/s")
    peer = f"ase.db {ase.__version__}"
    keywords = {"unit": "x", "target": 5.0, "better": "higher", "threads": 1}
    record("read aselmdb", whole, peer=f"{peer} select() and toatoms(), CPU", **keywords)
    record("read aselmdb, beside select()", rows_only, peer=f"{peer} rows, CPU", **keywords)


def write_big(path, megabytes):
    records = [json.dumps(real.mptrj_record(frame)) for frame in real.frames()]
    number = size = 0
    with path.open("w") as handle:
        handle.write("{")
        while size < megabytes * 1e6:
            parts = [f'"mp-{number}-0-{k}": {records[(number + k) % len(records)]}'
                     for k in range(10)]  # fmt: skip
            text = f'{", " if number else ""}"mp-{number}": {{{", ".join(parts)}}}'
            handle.write(text)
            size += len(text)
            number += 1
        handle.write("}")
    return number * 10


def with_ijson(path):
    """Yield what the reader yields, as one who has ijson would write it."""
    with path.open("rb") as handle:
        for _, frames in ijson.kvitems(handle, "", use_float=True):
            for record in frames.values():
                sites = record["structure"]["sites"]
                yield (
                    np.array([atomic_numbers[site["species"][0]["element"]] for site in sites]),
                    np.array([site["xyz"] for site in sites]),
                    np.array(record["structure"]["lattice"]["matrix"]),
                    np.array(record["force"]),
                    np.array(record["stress"]) / -1602.1766208,
                    record["uncorrected_total_energy"],
                )


def test_mptrj(tmp_path, record):
    path = tmp_path / "mptrj.json"
    write_big(path, 30)

    def records():
        with path.open("rb") as handle:
            return sum(len(value) for _, value in ijson.kvitems(handle, "", use_float=True))

    parsed, slow = ratio(lambda: sum(1 for _ in stream(path, 2)), records)
    read_through, seconds = ratio(
        lambda: sum(1 for _ in read(path)), lambda: sum(1 for _ in with_ijson(path))
    )
    print(f"\n{30 / slow:.0f} MB/s to dictionaries, {30 / seconds:.0f} MB/s to frames")
    peer = f"ijson {ijson.backend}"
    keywords = {"unit": "x", "target": 5.0, "better": "higher", "threads": 1}
    record("parse MPtrj JSON to dictionaries", parsed, peer=f"{peer}, CPU", **keywords)
    record("read MPtrj JSON to frames", read_through, peer=f"{peer} to arrays, CPU", **keywords)


def test_mptrj_memory(tmp_path, record):
    path = tmp_path / "mptrj.json"
    frames = write_big(path, MEGABYTES)
    shown = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    path.unlink()
    count, memory = shown.stdout.split()
    assert int(count) == frames
    record(
        f"peak memory, MPtrj JSON of {MEGABYTES} MB", float(memory), unit="MB", target=1000.0,
        better="lower", peer="none", threads=1,
    )  # fmt: skip

"""Measured figures: printed, and kept in benchmarks/performance.json."""

import datetime
import json
import platform

import pytest

from mlip import paths

FILE = "performance.json"


@pytest.fixture
def record():
    """Return a function that keeps one figure; the newest of a name replaces the older."""

    def keep(name, value, *, unit, target, better, peer, threads, device="cpu"):
        path = paths.content("benchmarks") / FILE
        rows = json.loads(path.read_text()) if path.is_file() else []
        row = {
            "name": name,
            "value": round(value, 3),
            "unit": unit,
            "target": target,
            "better": better,
            "peer": peer,
            "threads": threads,
            "device": f"{device} ({platform.machine()})",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        rows = sorted([old for old in rows if old["name"] != name] + [row], key=lambda r: r["name"])
        path.write_text(json.dumps(rows, indent=1) + "\n")
        met = value >= target if better == "higher" else value <= target
        print(
            f"\n{name}: {value:.3g} {unit} (target {'≥' if better == 'higher' else '≤'} {target}, "
            f"{'met' if met else 'MISSED'}; peer {peer}; {threads} thread{'s' * (threads > 1)})"
        )

    return keep

"""What a run will cost, told before it starts from what was measured before."""

from collections.abc import Sequence
from statistics import median

from mlip import paths
from mlip.benchmarks.cases import Case
from mlip.benchmarks.record import Record
from mlip.benchmarks.results import read_records

_MIN_SAMPLES = 3


def describe_cost(
    task: str, calculator: str, wanted: Sequence[tuple[Case, str]], workers: int
) -> str:
    """Return a line such as ``48 cases, 3168 atoms, about 1 min by earlier runs``.

    The speed is the median time for an atom in each mode, of this calculator's published results
    of the same task; without any it is not guessed.

    Args:
        task: Its name.
        calculator: Name of its config.
        wanted: The cases and modes to run.
        workers: Processes that share them.
    """
    atoms = sum(_atoms(case) for case, _ in wanted)
    text = f"{len(wanted)} cases, {atoms} atoms"
    path = paths.content("benchmarks") / task / "results" / f"{calculator}.json"
    records = read_records(path) if path.is_file() else []
    seconds = 0.0
    for mode in sorted({mode for _, mode in wanted}):
        speed = _seconds_per_atom(records, mode)
        if speed is None:
            return f"{text}; no time known for {calculator} in the mode {mode}"
        # as records count atoms: of the structure, whose time holds that of its partner
        seconds += speed * sum(len(case.structure) for case, found in wanted if found == mode)
    return f"{text}, about {_written(seconds / workers)} by earlier runs"


def _atoms(case: Case) -> int:
    return len(case.structure) + (0 if case.partner is None else len(case.partner))


def _seconds_per_atom(records: Sequence[Record], mode: str) -> float | None:
    times = [
        record.wall_time / record.atoms
        for record in records
        if record.mode == mode and record.status == "ok" and record.wall_time and record.atoms
    ]
    return median(times) if len(times) >= _MIN_SAMPLES else None


def _written(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 90 else f"{minutes / 60:.1f} h"

"""Benchmarks: tasks, runner, metrics, leaderboard; nothing here needs torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlip.benchmarks.publish import report
    from mlip.benchmarks.runner import run_benchmark
    from mlip.benchmarks.sweep import cli_run

__all__ = ["cli_run", "report", "run_benchmark"]

# Lazy: a worker in the environment of one potential has ASE and little else.
_LAZY = {
    "cli_run": "mlip.benchmarks.sweep",
    "report": "mlip.benchmarks.publish",
    "run_benchmark": "mlip.benchmarks.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mlip.benchmarks' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)

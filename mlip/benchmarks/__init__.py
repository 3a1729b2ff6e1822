"""Benchmarks: tasks, runner, metrics, leaderboard; nothing here needs torch."""

from mlip.benchmarks.publish import report
from mlip.benchmarks.runner import run_benchmark
from mlip.benchmarks.sweep import cli_run

__all__ = ["cli_run", "report", "run_benchmark"]

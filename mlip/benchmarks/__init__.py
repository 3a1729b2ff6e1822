"""Benchmarks: tasks, runner, metrics, leaderboard."""

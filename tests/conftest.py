"""Fixtures shared by all tests: threads, small real data, tiny models."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    from mlip.runtime import set_threads

    set_threads(1)

"""Fixtures shared by all tests: threads, and the extras that marked tests need."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MPLBACKEND", "Agg")

from importlib.util import find_spec

import pytest
from hypothesis import settings

from mlip.config import options

# The same examples in every run; pytest --hypothesis-profile=default looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

PACKAGES = {
    "mace": "mace",
    "chgnet": "chgnet",
    "nequip": "nequip",
    "allegro": "allegro",
    "sevennet": "sevenn",
}
"""Marker, which is the name of a backbone and of its extra -> the package to import."""


def pytest_addoption(parser):
    parser.addoption("--require", default="", help="extras whose absence fails their tests")


def pytest_configure(config):
    for name in dict.fromkeys([*PACKAGES, *options("backbone")]):
        config.addinivalue_line("markers", f"{name}: needs the extra of the backbone {name}")


def pytest_runtest_setup(item):
    """Skip what needs a package that is not there; say so loudly where it ought to be."""
    required = item.config.getoption("--require").split(",")
    for marker in item.iter_markers():
        package = PACKAGES.get(marker.name)
        if package is None or find_spec(package) is not None:
            continue
        message = f"the package {package} is not installed: make setup, make setup-e3nn06"
        if marker.name in required:
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    from mlip.runtime import set_threads

    set_threads(1)

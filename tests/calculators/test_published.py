"""The cards of published potentials: what they call exists, and a missing package is named."""

import inspect
import sys

import pytest
from omegaconf import OmegaConf

from mlip.calculators import published
from mlip.calculators.build import build_calculator
from mlip.config import compose, options

PREFIX = "mlip.calculators.published."


def calculator(name):
    more = ["checkpoint=some.pt"] if name == "esen_30m_oam" else []
    config = compose("benchmark", [f"calculator={name}", *more]).calculator
    return OmegaConf.to_container(config, resolve=True)


CARDS = [
    name
    for name in options("calculator")
    if calculator(name)["build"]["_target_"].startswith(PREFIX)
]


def test_the_potentials_that_users_ask_for_have_a_card():
    families = {calculator(name)["build"]["_target_"].removeprefix(PREFIX) for name in CARDS}
    functions = inspect.getmembers(published, inspect.isfunction)
    own = {name for name, found in functions if found.__module__ == published.__name__}
    assert families == {name for name in own if not name.startswith("_")}
    assert len(CARDS) >= 18


@pytest.mark.parametrize("name", CARDS)
def test_a_card_calls_what_exists_and_says_where_its_weights_are(name):
    config = calculator(name)
    build = dict(config["build"])
    function = getattr(published, build.pop("_target_").removeprefix(PREFIX))
    inspect.signature(function).bind(**build)
    card = config["card"]
    assert card["requirements"]
    assert card["functional"] in ("PBE", "r2SCAN", "unknown")
    assert card["weights"].get("url", "").startswith("https://") or "package" in card["weights"]


@pytest.mark.parametrize("name", CARDS)
def test_a_missing_package_is_named_with_the_command(name, monkeypatch):
    config = calculator(name)
    packages = ("sevenn", "mace", "mattersim", "orb_models", "matgl", "fairchem", "nequip")
    for package in (*packages, "tensorpotential", "deepmd"):
        monkeypatch.setitem(sys.modules, package, None)
    for module in [key for key in sys.modules if key.split(".")[0] in packages]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match="pip install '"):
        build_calculator(config["build"])


def test_mace_is_constructed_by_its_own_package_and_no_network_is_one_sentence():
    pytest.importorskip("mace")
    with pytest.raises((RuntimeError, FileNotFoundError), match="no local model found"):
        published.mace("/nowhere/model.model")

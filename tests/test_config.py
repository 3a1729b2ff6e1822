"""Every option composes; a wrong one is answered with near matches."""

import pytest
from omegaconf import OmegaConf

from mlip import config, paths

GROUPS = {
    "model": "model={}",
    "backbone": "backbone@model.backbone={}",
    "head": "head@model.heads.energy={}",
    "term": "term@model.terms.zbl={}",
    "data": "data={}",
    "loss": "loss={}",
    "stages": "stages={}",
    "optimizer": "optimizer={}",
    "schedule": "schedule={}",
    "trainer": "trainer={}",
    "logger": "logger={}",
    "experiment": "experiment={}",
    "debug": "debug={}",
}
CASES = [(group, option) for group in GROUPS for option in config.options(group)]


@pytest.mark.parametrize(("group", "option"), CASES)
def test_every_option_composes(group, option):
    assert config.compose("train", [GROUPS[group].format(option)])


@pytest.mark.parametrize("path", sorted(paths.content("configs").rglob("*.yaml")), ids=str)
def test_every_config_says_what_it_is(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=2g", "unknown config key 'modle'; did you mean 'model'"),
        ("model=2gg", "no option '2gg' for 'model'; did you mean '2g'"),
        ("trainer.max_epoch=2", "did you mean 'trainer.max_epochs'"),
        ("model.backbone.rmax=5", "did you mean 'model.backbone.r_max'"),
        ("backbone@model.backbone=mice", "did you mean 'mace'"),
        ("seed", "not valid"),
    ],
)
def test_near_matches(override, message):
    with pytest.raises(ValueError, match=message):
        config.compose("train", [override])


def test_a_mapping_is_replaced_in_two_words():
    key = "loss.properties.forces.deltas"
    words = ["loss=stratified_huber", f"{key}={{0: 0.1, 5: 0.01}}"]
    with pytest.raises(ValueError, match=rf"{key} has no '5'.*give '~{key}' '\+{key}="):
        config.compose("train", words)
    composed = config.compose("train", [words[0], f"~{key}", f"+{words[1]}"])
    assert composed.loss.properties.forces.deltas == {0: 0.1, 5: 0.01}


def test_defaults_are_the_small_lithium_model():
    composed = config.compose("train")
    assert composed.data.source.card == "mlearn_li"
    assert list(composed.model.heads) == ["energy"]
    assert OmegaConf.is_missing(config.compose("train", ["data=extxyz"]).data, "path")

"""A config that could not be trained is refused before data are read, field by field."""

import time

import pytest
from omegaconf import OmegaConf

from mlip import config as configs
from mlip.training.check import check, monitors
from mlip.training.run import run
from mlip.training.schema import GROUPS, TOP

FORCES = "loss.properties.forces"
WRONG = {
    # types
    "optimizer.lr=fast": "optimizer.lr is 'fast': give a number",
    "optimizer.amsgrad=1": "optimizer.amsgrad is 1: give true or false",
    "trainer.max_epochs=abc": "trainer.max_epochs is 'abc': give a whole number",
    "trainer.max_epochs=2.5": "trainer.max_epochs is 2.5: give a whole number",
    "trainer.gradient_clip_val=much": "trainer.gradient_clip_val is 'much': give a number",
    "model.backbone.layers=two": "model.backbone.layers is 'two': give a whole number",
    "model.backbone.radial_network=64": "model.backbone.radial_network is 64: give a list",
    "model.backbone.radial_network=[64,a]": "model.backbone.radial_network is [64, 'a']",
    "model.heads.energy.hidden=null": "model.heads.energy.hidden is null: give a whole number",
    "model.precision=float16": "model.precision is 'float16': give float32 or float64; did you",
    "model.elements=Li": "model.elements is 'Li': give a list",
    "model.elements=[Li,Xx]": "model.elements holds 'Xx', which is no element",
    "model.backbone._target_=mlip.models.backbones.mace.Macee": "did you mean 'Mace'",
    "model.backbone._target_=os.system": "'os.system' is not allowed",
    "loss._target_=mlip.training.loss.Los": "_target_ is 'mlip.training.loss.Los'",
    "loss.properties.forces.function=hubber": "give mse or mae or huber; did you mean 'huber'?",
    "loss.properties.forces.weight=[1,2]": "weight is [1, 2]: give a number or a mapping of",
    "data.batch_size=0": "data.batch_size is 0: give a whole number from 1",
    "data.workers=-1": "data.workers is -1: give a whole number from 0",
    "data.batch={edges: many}": "data.batch is {'edges': 'many'}",
    "data.batch={edgs: 100}": "data.batch has no option 'edgs'; did you mean 'edges'",
    "data.source.val_fraction=some": "data.source.val_fraction is 'some': give a number",
    "seed=x": "seed is 'x': give a whole number from 0",
    "threads=0": "threads is 0: give a whole number from 1 or null",
    "dry_run=perhaps": "dry_run is 'perhaps': give true or false",
    "ema_decay=1": "ema_decay is 1: give a number from 0 (off) to below 1",
    "save_minutes=-1": "save_minutes is -1: give minutes from 0 or null",
    "patience=abc": "patience is 'abc': give epochs from 1 or null",
    "resume=yes": "resume is 'yes': give auto or null",
    "energy_references=isolatd": "did you mean 'isolated'?",
    # unknown keys, also where Hydra lets one add any
    "+model.backbone.chanels=64": "model.backbone.chanels is unknown; did you mean 'channels'?",
    "+model.head={}": "model.head is unknown; did you mean 'heads'?",
    "+optimizer.learning_rate=1": "optimizer.learning_rate is unknown",
    "+loss.properties.forces.dleta=1": "loss.properties.forces.dleta is unknown; did you mean",
    "+trainer.max_epoch=3": "trainer.max_epoch is unknown; did you mean 'max_epochs'",
    "+monitr=val/loss": "monitr is unknown; did you mean 'monitor'?",
    "~optimizer.lr +optimizer.weight_decai=1": "did you mean 'weight_decay'",
    "~model.backbone.r_max": "model.backbone.r_max is missing: give +model.backbone.r_max=…",
    # values that a constructor refuses
    "optimizer.lr=-1": "optimizer: Invalid learning rate",
    "loss.properties.forces.weight=-1": "loss.properties.forces: the weight of a loss is -1",
    "loss.properties.forces.weight={5: 1}": "give it from epoch 0 on",
    "loss.properties.forces.delta=0": "the Huber delta 0 must be positive",
    f"loss=stratified_huber ~{FORCES}.deltas +{FORCES}.deltas={{1: 0.1}}": "deltas is {1: 0.1}",
    "schedule=plateau schedule.factor=2": "schedule: Factor should be < 1.0",
    "stages=two stages.energies.start=-1": "start is -1: give an epoch from 0",
    "stages=two stages.energies.start=1.5": "start is 1.5: give an epoch",
    "stages=two stages.energies.learning_rate=0": "learning_rate is 0",
    # what cannot go together
    "trainer.max_epochs=0": "trainer.max_epochs is 0: give a whole number from 1",
    "patience=50": "patience is 50, but trainer.max_epochs is 50: it would never stop",
    "patience=5 +trainer.limit_val_batches=0": "trainer.limit_val_batches is 0: without validation",
    "+trainer.check_val_every_n_epoch=60": "trainer.check_val_every_n_epoch is 60, but",
    "monitor=val/los": "monitor is 'val/los', which no validation computes; did you mean",
    "monitor=val/forces_rmse": "did you mean 'val/forces_rmse_meV_per_A'",
    "start_head=default": "start_head is 'default', but start is null",
    "energy_references=foundation": "name the potential by start=FILE",
    "start=x.model stages=direct_forces": "leave out stages=direct_forces, or start",
    "stages=direct_forces": "direct forces are read from vectors, but this backbone has none",
    "stages=direct_forces backbone@model.backbone=chgnet": "but this backbone has none",
    "+head@model.heads.magmoms=magmoms": "no loss of magmoms would train it",
    "loss=huber_magmoms": "add its head, +head@model.heads.magmoms=magmoms",
    "+loss.properties.force=${loss.properties.forces}": "loss.properties.force is no property; did",
    "loss.properties.forces.weight={0: 1, 60: 2}": "changes at epoch 60, but trainer.max_epochs is",
    "stages=two stages.energies.start=50": "stages.energies.start is 50, but trainer.max_epochs",
    "stages=two +stages.energies.weights.forcs=1": "weights.forcs is no property of the loss; did",
    "stages=two stages.energies.weights={energy: 0, forces: 0, stress: 0}": "every loss weight is 0"
    " at epoch 38",
    f"{FORCES}.weight=0 loss.properties.energy.weight=0 loss.properties.stress.weight=0": "every "
    "loss weight is 0",
    "~model.heads.energy": "model.heads is empty",
}  # fmt: skip
RIGHT = [
    "loss=forces_first",
    "loss=stratified_huber stages=two",
    "loss=huber_magmoms +head@model.heads.magmoms=magmoms monitor=val/magmoms_mae_muB",
    "stages=direct_forces model.backbone.max_l=1",
    "loss.properties.forces.weight={0: 1, 2.5: 3} +loss.properties.forces.ramp=true",
    "energy_references={Li: -1.9}",
    "model.elements=[Li] patience=10 schedule=plateau logger=wandb debug=overfit",
    "~model.terms.zbl data.batch={edges: 2000}",
    "+optimizer.betas=[0.9,0.99]",
]


def split(line):
    """Words at spaces outside brackets."""
    words, depth = [""], 0
    for letter in line:
        depth += (letter in "{[") - (letter in "}]")
        if letter == " " and not depth:
            words.append("")
        else:
            words[-1] += letter
    return words


@pytest.fixture(scope="module", autouse=True)
def imported():
    check(configs.compose("train"))  # imports do not count below


@pytest.mark.mace
@pytest.mark.parametrize("overrides", WRONG)
def test_a_wrong_config_is_refused_before_data_are_read(overrides, monkeypatch, tmp_path):
    def read(*args, **kwargs):
        raise AssertionError("data were read")

    monkeypatch.setattr("mlip.training.run.prepare", read)
    composed = configs.compose("train", [*split(overrides), f"output={tmp_path}/out"])
    started = time.monotonic()
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        run(composed)
    assert WRONG[overrides] in str(caught.value)
    assert time.monotonic() - started < 5
    assert not (tmp_path / "out").exists()


@pytest.mark.mace
@pytest.mark.parametrize("overrides", RIGHT)
def test_a_right_config_passes(overrides):
    check(configs.compose("train", split(overrides)))


def test_every_problem_is_told_at_once_and_where_the_user_wrote_it():
    composed = configs.compose("train", ["trainer.max_epochs=abc", "seed=x", "optimizer.lr=fast"])
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check(composed)
    fields = [line.split(" is ")[0] for line in str(caught.value).splitlines()]
    assert sorted(fields) == ["optimizer.lr", "seed", "trainer.max_epochs"]  # not schedule.T_max


def test_every_key_of_the_entry_config_has_a_type():
    composed = OmegaConf.to_container(configs.compose("train"), resolve=False)
    assert set(composed) == {*TOP, *GROUPS}


@pytest.mark.parametrize(
    "group", ["backbone", "loss", "optimizer", "schedule", "stages", "trainer", "logger"]
)
def test_every_option_passes_its_own_check(group):
    from mlip.training.schema import type_errors

    word = {"backbone": "backbone@model.backbone"}.get(group, group)
    for option in configs.options(group):
        composed = configs.compose("train", [f"{word}={option}"])
        assert type_errors(OmegaConf.to_container(composed, resolve=True)) == [], option


def test_monitors_are_what_validation_logs():
    assert {"val/loss", "val/energy_per_atom_mae_meV", "val/stress_rmse_GPa"} <= set(monitors())
    assert not [name for name in monitors() if "direct" in name]  # no checkpoint has them

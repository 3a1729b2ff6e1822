"""Checkpoints: what they hold, and what is refused."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlip.models import checkpoint
from mlip.models.build import build, resolve
from mlip.testing.contract import example, predict

CONFIG = {
    "precision": "float32",
    "backbone": {
        "_target_": "mlip.models.backbones.mace.Mace",
        "r_max": 4.0,
        "channels": 4,
        "max_l": 0,
        "max_ell": 1,
        "correlation": 1,
        "layers": 1,
        "average_neighbors": None,
        "radial_network": [8],
    },
    "heads": {"energy": {"_target_": "mlip.models.heads.energy.Energy"}},
}


@pytest.fixture
def saved(tmp_path):
    config = resolve(CONFIG, ["Li"], 10.0)
    potential = build(config)
    potential.set_energy_references({"Li": -1.8211278900269037})
    return checkpoint.save(tmp_path / "p.safetensors", potential, config, {"data": "x"}), potential


def test_round_trip_keeps_references_in_double_precision(saved):
    path, potential = saved
    again = checkpoint.load(path)
    assert again.dtype == torch.float32
    assert again.energy_references.dtype == torch.float64
    assert float(again.energy_references[0]) == -1.8211278900269037
    atoms = example(["Li"])
    assert predict(again, atoms)["energy"] == predict(potential, atoms)["energy"]


def test_header_says_what_it_is(saved):
    header = checkpoint.read_header(saved[0])
    assert header["config"]["elements"] == ["Li"]
    assert header["config"]["backbone"]["average_neighbors"] == 10.0
    assert header["fields"]["stress"]["unit"] == "eV/Å³"
    assert header["versions"]["torch"]
    assert header["card"] == {"data": "x"}


def test_missing_folder_truncated_and_foreign_files(saved, tmp_path):
    path, _ = saved
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        checkpoint.load(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        checkpoint.load(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated"):
        checkpoint.load(path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="another format"):
        checkpoint.load(tmp_path / "text")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no mlip potential"):
        checkpoint.load(tmp_path / "other.safetensors")
    torch.save({"a": 1}, tmp_path / "pickle.pt")
    with pytest.raises(ValueError, match="another format"):
        checkpoint.load(tmp_path / "pickle.pt")


def rewrite(path, change):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["mlip"])
    change(header)
    save_file(tensors, path, metadata={"mlip": json.dumps(header)})


BORROWED = [
    "os.system",
    "mlip.models.terms.zbl.torch.hub.load",
    "mlip.models.terms.zbl.torch.load",
    "mlip.models.terms.zbl.torch",
    "mlip.models.heads.energy.nn.Linear",
    "mlip.models.heads.energy.Sequence",
    "mlip.models.backbones.mace.import_mace",
    "mlip.models.terms.zbl.ZBL",  # allowed, but no head
]


@pytest.mark.parametrize("target", BORROWED)
def test_a_target_outside_the_allow_list_is_never_built(saved, target):
    path, _ = saved
    rewrite(path, lambda header: header["config"]["heads"]["energy"].update(_target_=target))
    with pytest.raises(ValueError, match="_target_"):
        checkpoint.load(path)


def test_a_hidden_program_in_a_term_is_never_run(saved, tmp_path):
    (tmp_path / "hubconf.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'exploded')!r}).touch()\ndef x(): ...\n"
    )
    path, _ = saved
    term = {"_target_": "mlip.models.terms.zbl.torch.hub.load", "repo_or_dir": str(tmp_path),
            "model": "x", "source": "local"}  # fmt: skip
    rewrite(path, lambda header: header["config"].update(terms={"x": term}))
    with pytest.raises(ValueError, match="_target_"):
        checkpoint.load(path)
    assert not (tmp_path / "exploded").exists()


def test_hidden_keys_and_unknown_options_are_refused(saved):
    path, _ = saved
    rewrite(path, lambda header: header["config"]["backbone"].update(_partial_=True))
    with pytest.raises(ValueError, match="_partial_"):
        checkpoint.load(path)
    rewrite(path, lambda header: header["config"]["backbone"].pop("_partial_"))
    rewrite(path, lambda header: header["config"]["backbone"].update(depth=3))
    with pytest.raises(ValueError, match="depth"):
        checkpoint.load(path)


def test_another_e3nn_line_is_refused(saved):
    path, _ = saved
    rewrite(path, lambda header: header["versions"].update(e3nn="0.6.0"))
    with pytest.raises(ValueError, match=r"e3nn 0\.6\.0"):
        checkpoint.load(path)


def test_a_newer_format_is_refused(saved):
    path, _ = saved
    rewrite(path, lambda header: header.update(format_version=99))
    with pytest.raises(ValueError, match="version 99"):
        checkpoint.load(path)


def test_weights_that_do_not_fit_their_config(saved):
    path, _ = saved
    rewrite(path, lambda header: header["config"]["backbone"].update(channels=5))
    with pytest.raises(ValueError, match="do not fit"):
        checkpoint.load(path)


def test_an_unknown_element_is_named(saved):
    with pytest.raises(ValueError, match="does not know Cl; it was trained on Li"):
        predict(saved[1], example(["Li", "Cl"]))

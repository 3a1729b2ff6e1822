"""The verbs of mlip data on the command line: help, options, inputs and exit codes."""

import json
from itertools import pairwise

import numpy as np
import pytest

from mlip import config
from mlip.cli import main
from mlip.data.card import load_card, load_frames
from mlip.data.inputs import all_frames
from mlip.data.readers import read
from mlip.data.readers.recognize import formats
from mlip.data_cli import verbs
from mlip.data_cli.help_texts import VERBS
from mlip.data_cli.verbs import _SELECTION

LITHIUM = load_card("mlearn_li").folder / "test.extxyz.gz"


def run(*arguments):
    """Return the exit code."""
    try:
        main(["data", *map(str, arguments)])
    except SystemExit as ended:
        return ended.code
    return 0


def test_every_verb_explains_every_argument(capsys):
    assert run("--help") == 0
    overview = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert callable(getattr(verbs, name))
        assert f"mlip data {name} " in overview
        assert run(name, "--help") == 0
        page = capsys.readouterr().out
        for argument in (*verb.takes, *verb.names, *verb.flags):
            assert f"\n  {argument} " in page, (name, argument)
        assert max(map(len, page.splitlines())) <= 110


def test_the_help_names_what_there_is():
    assert set(_SELECTION) <= set(VERBS["pull"].names) & set(VERBS["select"].names)
    known = {*config.compose("label", []), "calculator"} - {"input", "output"}
    assert set(VERBS["label"].names) == known
    told = VERBS["inspect"].options["options='{…}'"]
    for found in formats().values():
        for option in list(_parameters(found.read))[1:]:
            assert f"{option}:" in told, (found.name, option)


def _parameters(function):
    from inspect import signature

    return signature(function).parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "no verb 'frob'; known: convert"),
        (["docter", "--help"], "no verb 'docter'; did you mean 'doctor'"),
        ([], "say one of inspect, doctor"),
        (["doctor", LITHIUM, "unit=ase"], "doctor has no option 'unit'; did you mean 'units'"),
        (["inspect", LITHIUM, "--jsn"], "inspect has no option '--jsn'; did you mean '--json'"),
        (["select", LITHIUM], "takes INPUT OUTPUT, but 1 is given"),
        (["convert", LITHIUM, "o", "workers=two"], "workers is 'two': give a whole number"),
        (["convert", LITHIUM, "o", "cutoff=far"], "cutoff is 'far': give a number"),
        (["convert", LITHIUM, "o", "neighbors=1"], "neighbors is '1': write true or false"),
        (["inspect", LITHIUM, "units={a"], "units is '{a', which cannot be read"),
        (["inspect", LITHIUM, "options=corrected"], "write a mapping, such as {energy: corrected}"),
        (["doctor", "mlearn_li", "units=ase"], "mlearn_li is a data set, which brings its own"),
        (["doctor", "no.extxyz"], "no.extxyz does not exist"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_data_set_is_an_input_of_every_verb(tmp_path, capsys):
    assert run("inspect", "mlearn_li") == 0
    page = capsys.readouterr().out
    for text in ("Zuo", "BSD-3-Clause", "virial_stress_raw", "241 frames", "data=card"):
        assert text in page
    assert run("inspect", "omat24") == 0
    page = capsys.readouterr().out
    assert "subset=rattled-300-subsampled  split=train, val  3,499,586 frames  6.5 GB" in page
    assert "next: mlip data pull omat24" in page
    assert run("inspect", load_card("mptrj").folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mptrj"
    assert run("select", "mlearn_li", tmp_path / "few.extxyz", "limit=3", "stratify=group") == 0
    chosen = list(read(tmp_path / "few.extxyz", "ase"))
    frames = [*load_frames("mlearn_li", "train"), *load_frames("mlearn_li", "test")]
    every = {frame.labels["energy"].item() for frame in frames}
    assert len(chosen) == 3
    assert {frame.labels["energy"].item() for frame in chosen} <= every
    assert len({frame.info["group"] for frame in chosen}) == 3


def test_a_store_is_an_input(tmp_path, capsys):
    assert run("convert", "mlearn_ni", tmp_path / "store") == 0
    frames = load_frames("mlearn_ni", "test")
    found = list(all_frames(tmp_path / "store"))
    for frame, true in zip(found, frames, strict=True):
        np.testing.assert_array_equal(frame.labels["forces"], true.labels["forces"])
    assert run("select", tmp_path / "store", tmp_path / "x.extxyz", "where=max_force<1") == 0
    small = sum(np.linalg.norm(f.labels["forces"], axis=1).max() < 1 for f in frames)
    assert f"{small} frames, all that pass" in capsys.readouterr().out
    assert run("doctor", tmp_path / "store", "options={energy: free}") == 2
    assert "a training store, which brings its own" in capsys.readouterr().err


def test_a_conversion_that_was_killed_says_how_it_goes_on(tmp_path, capsys):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "conversion.json").write_text("{}")
    for verb in ("inspect", "doctor"):
        assert run(verb, tmp_path / "store") in (1, 2)
        told = capsys.readouterr()
        assert "run the same mlip data convert again" in told.out + told.err


def test_packed_archives_are_to_be_unpacked(tmp_path, capsys):
    import tarfile

    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(LITHIUM, "li.extxyz.gz")
    assert run("inspect", tmp_path / "x.tar.gz") == 2
    assert "is a packed archive: unpack it" in capsys.readouterr().err


def test_options_are_told_in_the_order_of_the_usage():
    for verb in VERBS.values():
        usage = verb.help("x").split("\n\n")[0]
        places = [usage.index(f"[{example}]") for example in verb.options]
        assert all(first < second for first, second in pairwise(places))

"""Data cards: schema, checksums, and the table made from them."""

import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from mlip import paths
from mlip.data.card import list_cards, load_card, load_frames, readme_table

DATASETS = Path(__file__).parents[2] / "datasets"
CARDS = sorted(path.parent.name for path in DATASETS.glob("*/card.yaml"))


@pytest.fixture
def copy(tmp_path):
    """A copy of the lithium data set that may be damaged."""
    shutil.copytree(DATASETS / "mlearn_li", tmp_path / "mlearn_li")
    return tmp_path / "mlearn_li"


def edit(folder, change):
    path = folder / "card.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize("name", CARDS)
def test_every_card_matches_its_files(name):
    card = load_card(name)
    held = set()
    for split, file in card.files.items():
        frames = load_frames(card, split)
        assert len(frames) == file.frames
        assert all({"energy", "forces", "stress"} <= set(frame.labels) for frame in frames)
        held |= {symbol for frame in frames for symbol in frame.atoms.symbols}
    assert held <= set(card.elements) if card.remote else held == set(card.elements)
    assert card.frames == sum(file.frames for file in card.files.values())


def test_the_folder_is_the_registry():
    assert [card.name for card in list_cards()] == CARDS
    assert "mlearn_li" in CARDS


def test_the_readme_is_made_from_the_cards():
    assert (DATASETS / "README.md").read_text(encoding="utf-8") == readme_table(), (
        "run: python -m mlip.data.card"
    )


def test_no_python_and_only_snake_case_names():
    assert not list(DATASETS.rglob("*.py"))
    for folder in DATASETS.iterdir():
        assert not folder.is_dir() or re.fullmatch(r"[a-z][a-z0-9_]*", folder.name)


def test_a_card_anywhere_is_read_by_its_path(copy):
    assert load_card(copy).folder == copy
    assert load_card(copy / "card.yaml").name == "mlearn_li"
    assert len(load_frames(copy, "test")) == 29


def test_unknown_data_set_and_split():
    with pytest.raises(ValueError, match=r"no data set 'mlearn_lli'; did you mean 'mlearn_li'"):
        load_card("mlearn_lli")
    with pytest.raises(ValueError, match=r"'mlearn_ni' has no split 'train'; known: test"):
        load_frames("mlearn_ni", "train")


def test_a_changed_file_is_refused(copy):
    path = copy / "test.extxyz.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("-98.37064693", "-98.37064694", 1).encode()))
    with pytest.raises(ValueError, match=r"test.extxyz.gz has SHA-256 .* card of 'mlearn_li' says"):
        load_frames(copy, "test")


def test_a_missing_file_is_named(copy):
    (copy / "test.extxyz.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"test.extxyz.gz of data set 'mlearn_li' is missing"
    ):
        load_frames(copy, "test")


def test_a_wrong_count_is_named(copy):
    path = copy / "test.extxyz.gz"
    path.write_bytes(path.read_bytes() * 2)

    def change(card):
        card["files"]["test"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    with pytest.raises(ValueError, match=r"holds 58 frames, but the card of 'mlearn_li' says 29"):
        load_frames(edit(copy, change), "test")


WRONG = {
    "licence": (lambda card: card.pop("licence"), "'licence' is a required property"),
    "extra": (lambda card: card.update(colour="red"), "'colour' was unexpected"),
    "sign": (lambda card: card["fields"]["stress"].update(sign="plus"), "card.yaml: fields: "),
    "unit": (
        lambda card: card["fields"]["energy"].update(unit="volt"),
        "card.yaml: units.energy.unit: unknown unit 'volt'",
    ),
    "sha256": (
        lambda card: card["files"]["test"].update(sha256="abc"), "files.test.sha256: 'abc' does not"
    ),
    "name": (lambda card: card.update(name="other"), "name is 'other' but its folder is"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_card_is_explained(copy, case):
    change, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        load_card(edit(copy, change))


def test_broken_yaml_is_explained(copy):
    (copy / "card.yaml").write_text("name: [unclosed")
    with pytest.raises(ValueError, match=r"card.yaml is not valid YAML"):
        load_card(copy)


def test_the_schema_knows_every_label():
    from mlip.keys import LABELS

    schema = json.loads((paths.content("datasets") / "card.schema.json").read_text())
    assert set(schema["properties"]["fields"]["oneOf"][1]["properties"]) == set(LABELS)

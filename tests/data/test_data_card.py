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
        expected = (
            set(card.fields.labels) if card.fields.declared else {"energy", "forces", "stress"}
        )
        assert all(expected <= set(frame.labels) for frame in frames)
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
    with pytest.raises(FileNotFoundError, match=r"data set 'mlearn_lli'; did you mean 'mlearn_li'"):
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


SAMPLES = [
    path
    for name in ("bec_water", "li_electrode_lmo", "mptrj", "alexandria", "mlearn_li")
    for path in sorted((DATASETS / name).glob("*.extxyz.gz"))
]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_samples_read_back_to_the_last_digit(path):
    """Energies and coordinates are those that stand in the text, whoever reads it."""
    card = load_card(path.parent)
    split = next(split for split, file in card.files.items() if file.path == path.name)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    for frame in load_frames(card, split):
        count, header = int(lines[0]), lines[1]
        rows = [line.split() for line in lines[2 : count + 2]]
        lines = lines[count + 2 :]
        assert frame.atoms.get_chemical_symbols() == [row[0] for row in rows]
        assert frame.atoms.positions.tolist() == [[float(x) for x in row[1:4]] for row in rows]
        energy = re.search(r"(?:^|\s)energy=(\S+)", header)
        assert float(frame.labels["energy"]) == float(energy[1])
        lattice = re.search(r'Lattice="([^"]*)"', header)
        assert frame.atoms.cell.array.ravel().tolist() == [float(x) for x in lattice[1].split()]
        columns, first = re.search(r"Properties=(\S+)", header)[1].split(":"), 0
        for name, width in zip(columns[::3], map(int, columns[2::3]), strict=True):
            if name in ("forces", "apt"):
                label = "forces" if name == "forces" else "born_effective_charges"
                found = frame.labels[label].reshape(count, width)
                assert found.tolist() == [
                    [float(x) for x in r[first : first + width]] for r in rows
                ]
            first += width
    assert not lines


def test_samples_are_small_and_come_with_their_licence():
    for card in list_cards():
        for file in card.files.values():
            assert (card.folder / file.path).stat().st_size < 800e3
        assert not card.files or (card.folder / "LICENSE").is_file()
        assert not (card.files and "NC" in card.licence)


def test_formats_of_remote_files_exist():
    from mlip.data.readers.recognize import formats

    known = {*formats(), "extxyz"}
    assert {file.format for card in list_cards() for file in card.remote} <= known


def test_list_tells_what_there_is_and_its_size(capsys):
    from mlip.cli import main

    main(["list", "datasets"])
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines()] == CARDS
    omat = next(line for line in told.splitlines() if line.startswith("omat24"))
    assert re.search(r"23 files to pull \(102,859,796 frames, \d+\.\d GB\)", omat)

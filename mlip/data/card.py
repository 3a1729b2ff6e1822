"""Data cards: where a data set is from, how to read it, and what is wrong with it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from mlip import paths
from mlip.data.fields import FieldMap
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.remote import RemoteFile, remote_files, size_text
from mlip.errors import suggest

_SCHEMA = "card.schema.json"


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: its name in the card's folder, SHA-256 and number of frames."""

    path: str
    sha256: str
    frames: int


@dataclass(frozen=True)
class DataCard:
    """A data set, as ``datasets/<name>/card.yaml`` describes it.

    Args:
        name: Name of the folder; what one types.
        title: One line for tables.
        url: Where the data is from.
        licence: SPDX name.
        citation: Reference to cite.
        level_of_theory: ``functional``, ``code`` and, where known, ``settings``.
        elements: Symbols that occur.
        fields: Key, unit and convention of each label.
        files: File of each split.
        splits: How the splits were made.
        defects: Known defects, a sentence each.
        folder: Folder of the card.
        doi: Digital object identifier.
        version: Commit or release of the source.
        remote: Files elsewhere, which ``mlip data pull`` fetches.
    """

    name: str
    title: str
    url: str
    licence: str
    citation: str
    level_of_theory: Mapping[str, str]
    elements: tuple[str, ...]
    fields: FieldMap
    files: Mapping[str, DataFile]
    splits: str
    defects: tuple[str, ...]
    folder: Path
    doi: str = ""
    version: str = ""
    remote: tuple[RemoteFile, ...] = ()
    frames: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", sum(file.frames for file in self.files.values()))


def load_card(name: str | Path) -> DataCard:
    """Return the card of a data set, validated.

    Args:
        name: Name of a folder in ``datasets/``, or the path of any ``card.yaml`` or its folder.

    Raises:
        FileNotFoundError: If there is no such data set; near matches are listed.
        ValueError: If the card is invalid.
    """
    path = _card_path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML ({error}); correct it") from error
    _validate(path, content)
    if content["name"] != path.parent.name:
        raise ValueError(
            f"{path}: name is {content['name']!r} but its folder is {path.parent.name!r}; "
            "make them equal"
        )
    try:
        fields = FieldMap.from_config(content["fields"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    files = {split: DataFile(**entry) for split, entry in content.get("files", {}).items()}
    special = {"fields": fields, "files": files, "folder": path.parent}
    special["remote"] = remote_files(content.get("remote", ()))
    lists = {key: tuple(content[key]) for key in ("elements", "defects")}
    return DataCard(**{**content, **special, **lists})


def list_cards() -> list[DataCard]:
    """Return the cards of every folder in ``datasets/``, by name."""
    return [load_card(path) for path in sorted(paths.content("datasets").glob("*/card.yaml"))]


def load_frames(card: DataCard | str | Path, split: str) -> list[Frame]:
    """Return the frames of one split in internal units; see :func:`iterate_frames`."""
    return list(iterate_frames(card, split))


def iterate_frames(card: DataCard | str | Path, split: str) -> Iterator[Frame]:
    """Yield the frames of one split in internal units, checksum and count verified.

    Args:
        card: A card, its name, or its path.
        split: Name of a split of the card, ``train`` or ``test`` for instance.

    Raises:
        FileNotFoundError: If the file of the split is missing.
        ValueError: If the split does not exist, or the file is not the one the card describes.
    """
    card = card if isinstance(card, DataCard) else load_card(card)
    if not card.files:
        raise ValueError(
            f"the frames of data set {card.name!r} are not in the repository: mlip data pull "
            f"{card.name} fetches them"
        )
    if split not in card.files:
        raise ValueError(
            f"data set {card.name!r} has no split {split!r}{suggest(split, card.files)}"
        )
    file = card.files[split]
    path = card.folder / file.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} of data set {card.name!r} is missing; restore the file")
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}…, but the card of {card.name!r} says "
            f"{file.sha256[:12]}…: the file was changed or is damaged; restore it, or correct the "
            "card when the change is meant"
        )
    count = 0
    for frame in read(path, card.fields):
        count += 1
        yield frame
    if count != file.frames:
        raise ValueError(
            f"{path} holds {count} frames, but the card of {card.name!r} says {file.frames}; "
            "correct the card"
        )


def readme_table() -> str:
    """Return the text of ``datasets/README.md``, generated from the cards."""
    head = (
        "# Data sets\n\n"
        "Generated from the cards (`python -m mlip.data.card`); do not edit. How a card is read: "
        "`card.schema.json`.\n\n"
        "| name | what | elements | frames | labels | level of theory | licence | source |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(_row(card) for card in list_cards())


def _row(card: DataCard) -> str:
    frames = ", ".join(f"{split} {file.frames}" for split, file in card.files.items())
    if card.remote:
        frames = f"{frames or 'none here'}; {_online(card.remote)}"
    theory = f"{card.level_of_theory['functional']} ({card.level_of_theory['code']})"
    source = f"[{card.doi}](https://doi.org/{card.doi})" if card.doi else f"<{card.url}>"
    cells = (
        f"`{card.name}`", card.title, _elements(card.elements), frames,
        _labels(card.fields), theory, card.licence, source,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def summary_lines() -> list[str]:
    """Return a line a data set: name, frames in the repository, what there is to pull, title."""
    cards = list_cards()
    width = max(len(card.name) for card in cards)
    told = [_online(card.remote) if card.remote else "" for card in cards]
    wide = max(map(len, told))
    return [
        f"{card.name:<{width}}  {card.frames:>5} frames here  {far:<{wide}}  {card.title}"
        for card, far in zip(cards, told, strict=True)
    ]


def _online(remote: tuple[RemoteFile, ...]) -> str:
    """Return files, frames and bytes to pull; a sum of which a part is unknown says "over"."""
    frames = [file.frames for file in remote]
    sizes = [file.size for file in remote]
    parts = [
        f"{'over ' if None in known else ''}{text}"
        for known, text in (
            (frames, f"{sum(filter(None, frames)):,} frames"),
            (sizes, size_text(sum(filter(None, sizes)))),
        )
        if any(known)
    ]
    files = f"{len(remote)} file{'s' if len(remote) > 1 else ''} to pull"
    return f"{files} ({', '.join(parts)})" if parts else files


def _labels(fields: FieldMap) -> str:
    return ", ".join(fields.labels) if fields.declared else "by their ASE names"


def _elements(elements: tuple[str, ...]) -> str:
    return ", ".join(elements) if len(elements) <= 8 else f"{len(elements)} elements"


def _card_path(name: str | Path) -> Path:
    given = Path(name)
    if given.name == "card.yaml" and given.is_file():
        return given
    if (given / "card.yaml").is_file():
        return given / "card.yaml"
    folder = paths.content("datasets")
    if (folder / given / "card.yaml").is_file():
        return folder / given / "card.yaml"
    known = [path.parent.name for path in folder.glob("*/card.yaml")]
    raise FileNotFoundError(
        f"there is no file, folder or data set {str(name)!r}{suggest(str(name), known)}"
    )


def _validate(path: Path, content: Any) -> None:
    schema = json.loads((paths.content("datasets") / _SCHEMA).read_text(encoding="utf-8"))
    errors = sorted(Draft202012Validator(schema).iter_errors(content), key=lambda e: list(e.path))
    if errors:
        where = ".".join(str(part) for part in errors[0].path) or "the card"
        raise ValueError(f"{path}: {where}: {errors[0].message}; correct it ({_SCHEMA})")


if __name__ == "__main__":
    (paths.content("datasets") / "README.md").write_text(readme_table(), encoding="utf-8")

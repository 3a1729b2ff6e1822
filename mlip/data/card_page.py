"""What a data set is, told from its card: ``mlip data inspect NAME``."""

import textwrap
from dataclasses import asdict
from typing import Any

from mlip.data.card import DataCard
from mlip.data.remote import size_text

_WIDTH = 110


def card_text(card: DataCard) -> str:
    """Return a page for the terminal: origin, level of theory, labels, files, defects."""
    theory = ", ".join(card.level_of_theory.values())
    rows = [
        ("source", f"{card.url}{f'  doi:{card.doi}' if card.doi else ''}"),
        ("cite", card.citation),
        ("licence", card.licence),
        ("theory", theory),
        ("elements", f"{len(card.elements)}: {', '.join(card.elements)}"),
        ("labels", _labels(card)),
        ("splits", card.splits),
        *(
            (split, f"{file.frames} frames, {card.folder.name}/{file.path}")
            for split, file in card.files.items()
        ),
        *(("to pull", line) for line in _remote(card)),
        *(("defect", defect) for defect in card.defects),
    ]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{card.name}: {card.title}", *(_row(name, told, width) for name, told in rows)]
    return "\n".join([*lines, "", f"next: {_following(card)}"])


def card_content(card: DataCard) -> dict[str, Any]:
    """Return everything on a card as plain values."""
    return {**asdict(card), "folder": card.folder.name}


def _labels(card: DataCard) -> str:
    if not card.fields.declared:
        return "those of the format, else units=ase"
    labels = card.fields.labels.items()
    return "; ".join(f"{name} ({source.keys[0]}, {source.unit})" for name, source in labels)


def _remote(card: DataCard) -> list[str]:
    """Return a line a subset: its splits, frames and bytes."""
    lines = []
    for subset in dict.fromkeys(file.subset for file in card.remote):
        files = [file for file in card.remote if file.subset == subset]
        splits = ", ".join(dict.fromkeys(file.split for file in files if file.split))
        frames = sum(file.frames or 0 for file in files)
        size = sum(file.size or 0 for file in files)
        parts = (
            f"subset={subset}" if subset else "",
            f"split={splits}" if splits else "",
            f"{frames:,} frames" if frames else "",
            size_text(size) if size else "",
        )
        lines.append("  ".join(part for part in parts if part) or f"{len(files)} files")
    return lines


def _following(card: DataCard) -> str:
    if "train" in card.files:
        return f"mlip data doctor {card.name}; mlip train data=card data.card={card.name}"
    if card.files:
        return f"mlip data doctor {card.name}"
    return f"mlip data pull {card.name} output=FRAMES.extxyz limit=1000  (mlip data pull --help)"


def _row(name: str, told: str, width: int) -> str:
    return textwrap.fill(
        told,
        _WIDTH,
        initial_indent=f"{name:<{width}}",
        subsequent_indent=" " * width,
        break_on_hyphens=False,
        break_long_words=False,
    )

"""Where training frames come from: a data card, or one's own files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from mlip.data.card import load_card, load_frames
from mlip.data.fields import FieldMap
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.splits import hold_out
from mlip.data.store.reader import Store
from mlip.data.store.view import StoreView, divide


@dataclass(frozen=True)
class Splits:
    """Frames to train on, to validate with, and to test on.

    Args:
        train: Frames whose labels are learnt.
        val: Frames that choose the best checkpoint.
        test: Frames that nothing before the final report has seen; may be empty.
        origin: Name and level of theory, kept in the checkpoint.
    """

    train: Sequence[Frame]
    val: Sequence[Frame]
    test: Sequence[Frame]
    origin: Mapping[str, Any]

    @property
    def elements(self) -> list[str]:
        """Symbols of all frames, in the order of the periodic table."""
        splits = (self.train, self.val, self.test)
        views = [frames for frames in splits if isinstance(frames, StoreView)]
        found = {(atomic_numbers[e], e) for view in views for e in view.elements} | {
            (int(number), symbol)
            for frames in splits
            if not isinstance(frames, StoreView)
            for frame in frames
            for number, symbol in zip(
                frame.atoms.numbers, frame.atoms.get_chemical_symbols(), strict=True
            )
        }
        return [symbol for _, symbol in sorted(found)]


def from_card(card: str, val_fraction: float, stratify: str | None = None, seed: int = 0) -> Splits:
    """Return the splits of a data card; validation frames are held out of ``train``.

    Args:
        card: Name of a folder in ``datasets/``.
        val_fraction: Share of the training frames to validate with.
        stratify: Info key within which to hold out evenly.
        seed: Seed of the hold-out.

    Raises:
        ValueError: If the card has no ``train`` split, or a file does not match its card.
    """
    loaded = load_card(card)
    train, val = hold_out(load_frames(loaded, "train"), val_fraction, seed, stratify)
    test = load_frames(loaded, "test") if "test" in loaded.files else []
    origin = {
        "data": loaded.name,
        "title": loaded.title,
        "licence": loaded.licence,
        "level_of_theory": dict(loaded.level_of_theory),
    }
    return Splits(train, val, test, origin)


def from_files(  # noqa: PLR0913  the choices of configs/data/extxyz.yaml
    train: str | Path,
    units: str | Mapping[str, Any] | None,
    *,
    options: Mapping[str, Any] | None = None,
    val: str | Path | None = None,
    test: str | Path | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    stratify: str | None = None,
    group: str | None = None,
    seed: int = 0,
) -> Splits:
    """Return splits of one's own files; what is not given is held out of ``train``.

    Args:
        train: File with energies and forces.
        units: ``ase``, or a mapping of fields as in a data card; None for formats that fix them.
        options: Options of the format's reader, ``{energy: corrected}`` of MPtrj for instance.
        val: Validation file, or None to hold out ``val_fraction``.
        test: Test file, or None to hold out ``test_fraction``.
        val_fraction: Share held out for validation.
        test_fraction: Share held out for the final test.
        stratify: Info key within which to hold out evenly.
        group: What must not be divided, ``material`` for instance (``mlip.data.groups``).
        seed: Seed of the hold-outs.
    """
    fields = None if units is None else FieldMap.from_config(units)
    given = dict(options or {})
    frames: list[Frame] = list(read(train, fields, **given))
    if test is None:
        frames, tested = hold_out(frames, test_fraction, seed + 1, stratify, group)
    else:
        tested = list(read(test, fields, **given))
    if val is None:
        frames, validated = hold_out(frames, val_fraction, seed, stratify, group)
    else:
        validated = list(read(val, fields, **given))
    origin = {
        "data": Path(train).name,
        "title": "user's file",
        "licence": "not stated",
        "level_of_theory": {},
    } | ({"options": given} if given else {})
    return Splits(frames, validated, tested, origin)


def from_store(
    path: str | Path,
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
    group: str | None = None,
    seed: int = 0,
) -> Splits:
    """Return the splits of a training store; frames stay on the disk until they are used.

    Args:
        path: Folder that ``mlip data convert`` wrote.
        val_fraction: Share held out for validation, where the store names no validation frames.
        test_fraction: Share held out for the test, where the store names no test frames.
        group: Info key whose equal values stay on one side, the material id for instance.
        seed: Seed of the hold-outs.

    Raises:
        FileNotFoundError: If the folder holds no finished store.
        ValueError: If the store is damaged or holds several functionals.
    """
    store = Store(path)
    told = store.manifest.told
    for key in ("functional", "energy_kind", "corrections"):
        if len(told.get(key, {})) > 1:
            raise ValueError(
                f"{path}: {key} differs between frames: {', '.join(sorted(told[key]))}; convert "
                "each kind to a store of its own"
            )
    train, val, test = divide(store, val_fraction, test_fraction, seed, group)
    known = store.manifest.origin
    origin = {
        "data": Path(path).name,
        "title": known.get("title", ""),
        "licence": known.get("licence", "not stated"),
        "level_of_theory": {
            **known.get("level_of_theory", {}),
            **{key: next(iter(values)) for key, values in told.items() if key != "data"},
        },
    }
    return Splits(train, val, test, origin)

"""Where training frames come from: a data card, one's own files, or a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from mlip.data.alignment import Alignment
from mlip.data.card import load_card, load_frames
from mlip.data.energy_references import is_isolated
from mlip.data.fields import FieldMap
from mlip.data.frame import Frame
from mlip.data.mixture import Mixture
from mlip.data.readers import read
from mlip.data.splits import hold_out
from mlip.data.store.reader import Store
from mlip.data.store.view import StoreView, divide

_NOT_THEORY = ("data", "converged")
_THEORY = ("functional", "corrections", "energy_kind")


@dataclass(frozen=True)
class Splits:
    """Frames to train on, to validate with, and to test on.

    Args:
        train: Frames whose labels are learnt.
        val: Frames that choose the best checkpoint.
        test: Frames that nothing before the final report has seen; may be empty.
        origin: Name and level of theory, kept in the checkpoint.
        alignment: How the energies of several sources were brought together.
    """

    train: Sequence[Frame]
    val: Sequence[Frame]
    test: Sequence[Frame]
    origin: Mapping[str, Any]
    alignment: Alignment | None = None

    @property
    def elements(self) -> list[str]:
        """Symbols of all frames, in the order of the periodic table."""
        found = set().union(*map(_elements, (self.train, self.val, self.test)))
        return sorted(found, key=atomic_numbers.__getitem__)


def without_isolated(splits: Splits) -> tuple[Splits, list[Frame]]:
    """Return splits without isolated atoms, and these.

    Raises:
        ValueError: For a mixture, in which each source has atoms of its own.
    """
    if splits.alignment is not None or isinstance(splits.train, Mixture):
        raise ValueError(
            "energy_references is isolated, but the data is a mixture: name the file of the atoms "
            "of the reference source, energy_references={isolated: FILE, units: ase}"
        )
    kept, atoms = {}, []
    for name in ("train", "val", "test"):
        frames: Sequence[Frame] = getattr(splits, name)
        places = [int(i) for i in _single(frames) if is_isolated(frames[int(i)])]
        atoms += [frames[place] for place in places]
        rest = np.setdiff1d(np.arange(len(frames)), places)
        if isinstance(frames, StoreView):
            kept[name] = frames.take(rest)
        else:
            kept[name] = [frames[int(place)] for place in rest]
    return replace(splits, **kept), atoms


def _single(frames: Sequence[Frame]) -> np.ndarray:
    if isinstance(frames, StoreView):
        return np.flatnonzero(frames.store.atom_counts[frames.indices] == 1)
    return np.flatnonzero([len(frame) == 1 for frame in frames])


def _elements(frames: Sequence[Frame]) -> set[str]:
    if isinstance(frames, StoreView):
        return set(frames.elements)
    if isinstance(frames, Mixture):
        return set().union(*(_elements(part.frames) for part in frames.parts))
    return {symbol for frame in frames for symbol in set(frame.atoms.symbols)}


def from_card(
    card: str,
    val_fraction: float,
    stratify: str | None = None,
    group: str | None = None,
    seed: int = 0,
) -> Splits:
    """Return the splits of a data card; without a split ``val``, some of ``train`` are held out.

    Args:
        card: Name of a folder in ``datasets/``.
        val_fraction: Share of the training frames to validate with, if the card has no ``val``.
        stratify: Info key within which to hold out evenly.
        group: What must not be divided, ``material`` for instance (``mlip.data.groups``).
        seed: Seed of the hold-out.

    Raises:
        ValueError: If the card has no ``train`` split, or a file does not match its card.
    """
    loaded = load_card(card)
    train = load_frames(loaded, "train")
    if "val" in loaded.files:
        val = load_frames(loaded, "val")
    else:
        train, val = hold_out(train, val_fraction, seed, stratify, group)
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
        "level_of_theory": _told([*frames, *validated, *tested]),
    } | ({"options": given} if given else {})
    return Splits(frames, validated, tested, origin)


def _told(frames: Sequence[Frame]) -> dict[str, str]:
    """Return what the frames say of their level of theory, where they agree."""
    found = {key: {str(f.info[key]) for f in frames if key in f.info} for key in _THEORY}
    return {key: next(iter(values)) for key, values in found.items() if len(values) == 1}


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
        group: What must not be divided, ``material`` for instance (``mlip.data.groups``).
        seed: Seed of the hold-outs.

    Raises:
        FileNotFoundError: If the folder holds no finished store.
        ValueError: If the store is damaged or holds several functionals.
    """
    store = Store(path)
    told = store.manifest.told
    for key in ("functional", "energy_kind", "charge_partition", "corrections"):
        if len(told.get(key, {})) > 1:
            raise ValueError(
                f"{path}: {key} differs between frames: {', '.join(sorted(told[key]))}; convert "
                "each kind to a store of its own"
            )
    if unconverged := told.get("converged", {}).get("False"):
        raise ValueError(
            f"{path}: the electronic steps of {unconverged} frames did not converge; leave them "
            "out (mlip data select INPUT OUTPUT where=converged) and convert again"
        )
    train, val, test = divide(store, val_fraction, test_fraction, seed, group)
    known = store.manifest.origin
    origin = {
        "data": Path(path).name,
        "title": known.get("title", ""),
        "licence": known.get("licence", "not stated"),
        "level_of_theory": {
            **known.get("level_of_theory", {}),
            **{key: next(iter(values)) for key, values in told.items() if key not in _NOT_THEORY},
        },
    }
    return Splits(train, val, test, origin)

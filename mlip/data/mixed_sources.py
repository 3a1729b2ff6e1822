"""Training on several sources at once: their frames, and the alignment of their energies."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlip.data.alignment import Alignment, align, require_one_kind
from mlip.data.corrections import remove
from mlip.data.frame import Frame
from mlip.data.mixture import Mixture, Part, seen
from mlip.data.sources import Splits, from_card, from_files, from_store
from mlip.data.store.reader import is_store
from mlip.data.store.view import StoreView, sample
from mlip.errors import suggest

_OURS = ("path", "card", "weight", "remove_corrections")
_FITTED = 20_000  # frames of each source that an alignment looks at
_OF_CARD = ("val_fraction", "stratify", "group")
_OF_STORE = ("val_fraction", "test_fraction", "group")
_OF_FILE = ("units", "val", "test", "val_fraction", "test_fraction", "stratify", "group", "options")


def from_mixture(
    sources: Mapping[str, Mapping[str, Any]],
    *,
    reference: str | None = None,
    aligned: bool = True,
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
    group: str | None = None,
    seed: int = 0,
) -> Splits:
    """Return the splits of several sources, with energies on the scale of one of them.

    Each source is divided by itself, so that its frames never change sides. The shifts are fitted
    to training frames only (:func:`mlip.data.alignment.align`).

    Args:
        sources: By name: ``{path: FILE or STORE, units: …}`` or ``{card: NAME}``, and ``weight``,
            how often an epoch sees its frames, ``remove_corrections: MP2020`` (or OMat24), which
            takes these out of the energies of a file or card (:mod:`mlip.data.corrections`), or an
            option of that kind of source (``group``, ``val_fraction``, …).
        reference: Source whose energies stay; None takes the one with most training frames.
        aligned: False leaves all energies as they are, for sources of one level of theory.
        val_fraction: Share held out for validation, of sources that do not say.
        test_fraction: Share held out for the test, of sources that do not say.
        group: What must not be divided, of sources that do not say.
        seed: Seed of the hold-outs, and of which frames a weight below one leaves out.

    Raises:
        ValueError: If there are not two sources, one cannot be read, or their energies cannot be
            brought to one scale.
    """
    if len(sources) < 2:
        raise ValueError(
            f"data.sources names {', '.join(sources) or 'nothing'}: give two or more, such as "
            "{omat: {path: STORE}, mine: {path: FILE, units: ase}}"
        )
    common = {"val_fraction": val_fraction, "test_fraction": test_fraction, "group": group}
    found = {name: _uncorrected(name, entry, common, seed) for name, entry in sources.items()}
    train = {name: sample(splits.train, _FITTED) for name, splits in found.items()}
    weights = {name: entry.get("weight", 1.0) for name, entry in sources.items()}
    alignment = _aligned(found, train, reference) if aligned else None
    if alignment is None:
        _require_one_theory(found)
        require_one_kind(train)

    def joined(frames: Mapping[str, Sequence[Frame]], weighted: bool = False) -> Mixture:
        return Mixture([
            Part(
                name,
                some,
                alignment.shifts.get(name, {}) if alignment else {},
                seen(len(some), weights[name] if weighted else 1, seed),
            )
            for name, some in frames.items()
        ])  # fmt: skip

    return Splits(
        joined({name: splits.train for name, splits in found.items()}, weighted=True),
        joined({name: splits.val for name, splits in found.items()}),
        joined({name: splits.test for name, splits in found.items()}),
        _origin(found, alignment),
        alignment,
    )


def _uncorrected(
    name: str, entry: Mapping[str, Any], common: Mapping[str, Any], seed: int
) -> Splits:
    splits = _load(name, entry, common, seed)
    kind = entry.get("remove_corrections")
    if kind is None:
        return splits
    if isinstance(splits.train, StoreView):
        raise ValueError(
            f"data.sources.{name}.remove_corrections is {kind!r}, but its energies are stored: "
            "convert the uncorrected energies to a store (of MPtrj the default)"
        )
    parts = {split: getattr(splits, split) for split in ("train", "val", "test")}
    return replace(splits, **{k: [remove(f, kind) for f in frames] for k, frames in parts.items()})


def _load(name: str, entry: Mapping[str, Any], common: Mapping[str, Any], seed: int) -> Splits:
    kinds = [key for key in ("path", "card") if key in entry]
    if len(kinds) != 1:
        raise ValueError(
            f"data.sources.{name} is {dict(entry)!r}: give it one of path (a file or store) and "
            "card (the name of a data set)"
        )
    place = entry[kinds[0]]
    store = kinds == ["path"] and is_store(place)
    known = _OF_CARD if kinds == ["card"] else _OF_STORE if store else _OF_FILE
    given = {key: value for key, value in entry.items() if key not in _OURS}
    for key in given:
        if key not in known:
            raise ValueError(
                f"data.sources.{name} has no option {key!r}{suggest(key, [*_OURS[2:], *known])}"
            )
    options = {**{key: value for key, value in common.items() if key in known}, **given}
    if kinds == ["card"]:
        return from_card(place, seed=seed, **options)
    if store:
        return from_store(place, seed=seed, **options)
    if "units" not in options:
        raise ValueError(f"data.sources.{name}.units is missing: ase, or fields as in a data card")
    return from_files(place, seed=seed, **options)


def _aligned(
    found: Mapping[str, Splits], train: Mapping[str, Sequence[Frame]], reference: str | None
) -> Alignment:
    if reference is not None and reference not in found:
        raise ValueError(f"data.reference is {reference!r}, no source{suggest(reference, found)}")
    largest = max(found, key=lambda name: len(found[name].train))
    return align(train, reference or largest)


def _require_one_theory(found: Mapping[str, Splits]) -> None:
    told = {
        name: splits.origin["level_of_theory"].get("functional") for name, splits in found.items()
    }
    if len({functional for functional in told.values() if functional}) > 1:
        listed = ", ".join(
            f"{name} {functional or 'not stated'}" for name, functional in told.items()
        )
        raise ValueError(
            f"the sources differ in their functional ({listed}): leave data.aligned=true, so that "
            "each gets energies of its elements of its own"
        )


def _origin(found: Mapping[str, Splits], alignment: Alignment | None) -> dict[str, Any]:
    def told(key: str) -> str:
        return "; ".join(dict.fromkeys(str(splits.origin[key]) for splits in found.values()))

    origin: dict[str, Any] = {
        "data": " + ".join(found),
        "title": told("title"),
        "licence": told("licence"),
        "level_of_theory": dict(next(iter(found.values())).origin["level_of_theory"]),
        "sources": {
            name: {**splits.origin, "frames": len(splits.train)} for name, splits in found.items()
        },
    }
    if alignment is not None:
        origin["level_of_theory"] = dict(found[alignment.reference].origin["level_of_theory"])
        origin["alignment"] = alignment.to_card()
    return origin

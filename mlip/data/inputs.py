"""What may be named as an input: a file, a folder, a training store, or a data set by its card."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from mlip.data.fields import FieldMap
from mlip.data.frame import Frame
from mlip.data.readers import read
from mlip.data.readers.recognize import format_of


def is_data_set(source: str | Path) -> bool:
    """Return whether a name is that of a data set or its card, not of a file or folder."""
    path = Path(source)
    if path.name == "card.yaml" or (path / "card.yaml").is_file():
        return True
    return not path.exists() and not path.suffix and len(path.parts) == 1


def frames_by_split(
    source: str | Path,
    fields: FieldMap | str | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Iterable[Frame]]:
    """Return the frames of an input by split, none of them read yet; of a file, one split.

    Args:
        source: A file, a folder, a store, the name of a data set, or the path of a card.
        fields: Field map of a file; stores and cards bring their own.
        options: Options of the reader of a file.

    Raises:
        FileNotFoundError: If there is no such file or data set.
        ValueError: If the format is unknown.
    """
    from mlip.data.store.reader import Store, is_store

    if is_store(source):
        from mlip.data.store.report import splits_of

        return dict(splits_of(Store(source)))
    if not is_data_set(source):
        format_of(Path(source))
        return {"file": _later(partial(read, source, fields, **(options or {})))}
    from mlip.data.card import iterate_frames, load_card

    card = load_card(source)
    if not card.files:
        next(iterate_frames(card, ""))  # raises, and says how to get them
    return {split: iterate_frames(card, split) for split in card.files}


def all_frames(
    source: str | Path,
    fields: FieldMap | str | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Frame]:
    """Yield the frames of every split of an input; see :func:`frames_by_split`.

    Raises:
        ValueError: Also if units or options are given where they have no use.
    """
    require_use(source, fields, options)
    return chain.from_iterable(frames_by_split(source, fields, options).values())


def require_use(source: str | Path, fields: Any, options: Any) -> None:
    """Refuse units and options for an input that brings its own.

    Raises:
        ValueError: If they are given for a store or a data set.
    """
    from mlip.data.store.reader import is_store

    what = "a training store" if is_store(source) else "a data set" if is_data_set(source) else ""
    for name, value in (("units", fields), ("options", options)):
        if what and value:
            raise ValueError(
                f"{name} is given, but {source} is {what}, which brings its own: leave {name} out"
            )


def _later(make: Any) -> Iterator[Frame]:
    """Open a file when its first frame is asked for."""
    yield from make()

"""``mlip data convert`` on the command line."""

from collections.abc import Sequence

import yaml

from mlip.data.findings import examples
from mlip.data.readers.recognize import reader_options
from mlip.data.store.convert import convert
from mlip.data.store.layout import Layout
from mlip.data.store.tasks import left_out
from mlip.errors import suggest

HELP = """mlip data convert INPUT OUTPUT [units=ase] [workers=N] [cutoff=5.0] [neighbors=true]
                  [shard_frames=5000] [options='{energy: corrected}']

  INPUT     a file, a folder of files, or the name of a data set (which brings its units)
  OUTPUT    a new folder; after a kill the same command goes on where it stopped"""
_OPTIONS = ("units", "options", "workers", "cutoff", "neighbors", "shard_frames")


def cli_convert(arguments: Sequence[str]) -> int:
    """Convert an input to a store and say what it holds.

    Raises:
        ValueError: For bad arguments, and as :func:`mlip.data.store.convert.convert`.
    """
    paths = [argument for argument in arguments if "=" not in argument]
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    flags = [path for path in paths if path.startswith("-")]
    if unknown := flags or sorted(set(given) - set(_OPTIONS)):
        raise ValueError(f"unknown option {unknown[0]!r}{suggest(unknown[0], _OPTIONS)}")
    if len(paths) != 2:
        raise ValueError(f"mlip data convert takes an input and an output:\n{HELP}")
    values = {name: yaml.safe_load(text) for name, text in given.items()}
    layout = Layout(
        cutoff=float(_number(values, "cutoff", 5.0)),
        neighbors=_flag(values.get("neighbors", False)),
        shard_frames=int(_number(values, "shard_frames", 5000)),
    )
    workers = int(_number(values, "workers", 1))
    store = convert(
        paths[0],
        paths[1],
        values.get("units"),
        workers=workers,
        layout=layout,
        reader_options=reader_options(given),
        progress=True,
    )
    held = store.manifest
    if others := left_out(paths[0]):
        print(f"left out, of no known format: {examples(others)}")  # noqa: T201
    labels = ", ".join(held.labels)
    print(  # noqa: T201
        f"{store.folder}: {held.frames:,} frames, {held.atoms:,} atoms, {held.edges:,} edges "
        f"within {held.cutoff:g} Å, {len(held.elements)} elements, labels {labels}\n"
        f"next: mlip data doctor {store.folder}; mlip train data=store data.path={store.folder}"
    )
    return 0


def _number(values: dict[str, object], name: str, default: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}: give a number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"neighbors is {value!r}: write true or false")
    return value

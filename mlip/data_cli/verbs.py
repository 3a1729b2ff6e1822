"""The work of each verb of ``mlip data``; all arguments are read here, all results printed here."""

import json
from collections.abc import Sequence
from pathlib import Path

from mlip.data.findings import examples
from mlip.data_cli.arguments import Given
from mlip.data_cli.help_texts import VERBS


def inspect(arguments: Sequence[str]) -> int:
    """Tell what a file, a folder, a store or a data set holds."""
    from mlip.data.inputs import is_data_set

    given = VERBS["inspect"].parse("inspect", arguments)
    if is_data_set(given.paths[0]):
        from mlip.data.card import load_card
        from mlip.data.card_page import card_content, card_text

        card = load_card(given.paths[0])
        as_json = "--json" in given.flags
        print(json.dumps(card_content(card), indent=2) if as_json else card_text(card))
        return 0
    from mlip.data.inspect import inspect as look

    found = look(Path(given.paths[0]), given.units(), **given.reader())
    print(found.to_json() if "--json" in given.flags else found.to_text())
    return 0


def doctor(arguments: Sequence[str]) -> int:
    """Check an input; the exit code is 1 if there is an error."""
    given = VERBS["doctor"].parse("doctor", arguments)
    (path,), units, options = given.paths, given.units(), given.reader()
    if "reference" in given or "output" in given:
        from mlip.evaluation.doctor import FRAMES, full_doctor

        asked = given.whole("frames") or FRAMES
        reference, output = given.values.get("reference"), given.values.get("output")
        report = full_doctor(path, units, reference, output, asked, options=options)
    else:
        from mlip.data.doctor import doctor as check

        report = check(path, units, **options)
    print(report.to_json() if "--json" in given.flags else report.to_text())
    return report.exit_code


def pull(arguments: Sequence[str]) -> int:
    """Fetch a data set, and choose frames of it where an output is named."""
    from mlip.data.contributions import Narrowing
    from mlip.data.pull import frames_of
    from mlip.data.pull import pull as fetch

    given = VERBS["pull"].parse("pull", arguments)
    (name,) = given.paths
    selection = _selection(given)
    if "output" not in given and any(option in given for option in _SELECTION):
        raise ValueError(
            "limit, elements, where, ... choose frames: say output=FILE.extxyz as well"
        )
    plain = not (selection.where or selection.source or selection.whole_pass)
    narrowing = Narrowing(selection.elements, selection.limit if plain else None)
    subsets, splits = given.words("subset"), given.words("split")
    pulled = fetch(name, subsets, given.values.get("folder"), splits=splits, narrowing=narrowing)
    for subset, files in pulled.files.items():
        print(f"{subset}: {len(files)} files, first {files[0] if files else '(none)'}")
    print("\n".join(pulled.notes))
    if "output" in given:
        frames = frames_of(name, pulled, given.reader(), given.units())
        _write(frames, selection, given.text("output"))
    return 0


def select(arguments: Sequence[str]) -> int:
    """Choose frames of an input."""
    from mlip.data.inputs import all_frames

    given = VERBS["select"].parse("select", arguments)
    source, output = given.paths
    _write(all_frames(source, given.units(), given.reader()), _selection(given), output)
    return 0


def convert(arguments: Sequence[str]) -> int:
    """Make a training store and say what it holds."""
    from mlip.data.store.convert import convert as make
    from mlip.data.store.layout import Layout
    from mlip.data.store.tasks import left_out

    given = VERBS["convert"].parse("convert", arguments)
    source, output = given.paths
    layout = Layout(
        cutoff=given.number("cutoff", 5.0),
        neighbors=given.truth("neighbors"),
        shard_frames=given.whole("shard_frames", 5000) or 0,
    )
    store = make(
        source,
        output,
        given.units(),
        workers=given.whole("workers", 1) or 0,
        layout=layout,
        reader_options=given.reader(),
        progress=True,
    )
    held = store.manifest
    if others := left_out(source):
        print(f"not read: {examples(others)}")
    print(
        f"{store.folder}: {held.frames:,} frames, {held.atoms:,} atoms, {held.edges:,} edges "
        f"within {held.cutoff:g} Å, {len(held.elements)} elements, labels {', '.join(held.labels)}\n"
        f"next: mlip data doctor {store.folder}; mlip train data=store data.path={store.folder}"
    )
    return 0


def label(arguments: Sequence[str]) -> int:
    """Compute labels; the options are those of ``configs/label.yaml``."""
    from mlip.labelling.label import cli_run

    given = VERBS["label"].parse("label", arguments)
    rest = [argument for argument in arguments if "=" in argument]
    names = zip(("input", "output"), given.paths, strict=True)
    result = cli_run([*(f"{name}={_quote(path)}" for name, path in names), *rest])
    print(f"{result.frames} frames: {result.output}  (read it with units=ase)")
    for index, message in list(result.failures.items())[:3]:
        print(f"failed: frame {index}: {message}")
    if result.failures:
        print(f"{len(result.failures)} frames failed: {result.report}")
    return 0


def sample(arguments: Sequence[str]) -> int:
    """Make the structures of a recipe."""
    from mlip.labelling.sample import load_recipe, write_sample

    given = VERBS["sample"].parse("sample", arguments)
    name, output = given.paths
    recipe = load_recipe(name)
    count = write_sample(recipe, output, frames=given.whole("frames"), seed=given.whole("seed"))
    print(f"{count} structures: {output}")
    print(f"label them: mlip data label {output} OUTPUT calculator={recipe.calculator}")
    return 0


_SELECTION = ("limit", "elements", "where", "source", "stratify", "seed")


def _selection(given: Given):  # noqa: ANN202  its module is slow to import
    from mlip.data.select import Selection

    return Selection(
        elements=given.words("elements"),
        where=given.words("where"),
        source=given.text("source"),
        limit=given.whole("limit"),
        stratify=given.values.get("stratify"),
        seed=given.whole("seed"),
    )


def _write(frames, selection, output: str) -> None:  # noqa: ANN001
    from mlip.data.pull import write_selection

    count = write_selection(frames, selection, output)
    use = "read it with units=ase" if Path(output).suffix else "a store: data=store"
    print(f"{count} frames, {selection.manner}: {output}  ({use})")


def _quote(path: str) -> str:
    """Return a path as a Hydra override takes it literally."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'

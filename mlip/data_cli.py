"""The verbs of mlip data: inspect, doctor, pull, select, convert, label, sample."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlip.errors import suggest


def run(arguments: Sequence[str]) -> int:
    """Run one verb and return the exit code.

    Raises:
        ValueError: For an unknown verb or option, or bad input.
    """
    if not arguments or arguments[0] not in ACTIONS:
        given = arguments[0] if arguments else ""
        raise ValueError(
            f"mlip data {given!r}: say one of {', '.join(ACTIONS)}{suggest(given, ACTIONS)}"
        )
    return ACTIONS[arguments[0]](arguments[1:])


def _inspect(arguments: Sequence[str]) -> int:
    from mlip.data.inspect import inspect

    known = ("units", "options")
    (path,), given, flags = _parse("inspect", arguments, "FILE", known, ("--json",))
    units = yaml.safe_load(given.get("units", "null"))
    found = inspect(Path(path), units, **_reader(given))
    print(found.to_json() if "--json" in flags else found.to_text())
    return 0


def _doctor(arguments: Sequence[str]) -> int:
    from mlip.data.doctor import doctor

    known = ("units", "options", "reference", "output", "frames")
    (path,), given, flags = _parse("doctor", arguments, "FILE", known, ("--json",))
    units, options = yaml.safe_load(given.get("units", "null")), _reader(given)
    if "reference" in given or "output" in given:
        from mlip.evaluation.doctor import FRAMES, full_doctor

        asked = _whole("frames", given.get("frames")) or FRAMES
        report = full_doctor(
            path, units, given.get("reference"), given.get("output"), asked, options=options
        )
    else:
        report = doctor(path, units, **options)
    print(report.to_json() if "--json" in flags else report.to_text())
    return report.exit_code


def _convert(arguments: Sequence[str]) -> int:
    from mlip.data.store.command import cli_convert

    return cli_convert(arguments)


def _label(arguments: Sequence[str]) -> int:
    from mlip.labelling.label import cli_run

    paths = [argument for argument in arguments if "=" not in argument]
    if len(paths) != 2:
        raise ValueError(f"mlip data label takes INPUT OUTPUT calculator=NAME, not {paths}")
    rest = [argument for argument in arguments if "=" in argument]
    quoted = [
        f"{name}={_quote(path)}" for name, path in zip(("input", "output"), paths, strict=True)
    ]
    result = cli_run([*quoted, *rest])
    print(f"{result.frames} frames: {result.output}  (read it with units=ase)")
    for index, message in list(result.failures.items())[:3]:
        print(f"failed: frame {index}: {message}")
    if result.failures:
        print(f"{len(result.failures)} frames failed: {result.report}")
    return 0


def _sample(arguments: Sequence[str]) -> int:
    from mlip.labelling.sample import load_recipe, write_sample

    paths, given, _ = _parse("sample", arguments, "RECIPE OUTPUT", ("frames", "seed"), ())
    numbers = {name: _whole(name, given.get(name)) for name in ("frames", "seed")}
    recipe = load_recipe(paths[0])
    count = write_sample(recipe, paths[1], **numbers)
    print(f"{count} structures: {paths[1]}")
    print(f"label them: mlip data label {paths[1]} OUTPUT calculator={recipe.calculator}")
    return 0


def _pull(arguments: Sequence[str]) -> int:
    from mlip.data.contributions import Narrowing
    from mlip.data.pull import frames_of, pull, write_selection

    options = ("subset", "split", "folder", "output", "options", *_SELECTION)
    (name,), given, _ = _parse("pull", arguments, "NAME", options, ())
    selection = _selection(given)
    if "output" not in given and set(given) & set(_SELECTION):
        raise ValueError(
            "limit, elements, where, ... choose frames: say output=FILE.extxyz as well"
        )
    subsets, parts = _words(given.get("subset", "")), _words(given.get("split", ""))
    plain = not (selection.where or selection.source or selection.whole_pass)
    narrowing = Narrowing(selection.elements, selection.limit if plain else None)
    pulled = pull(name, subsets, given.get("folder"), splits=parts, narrowing=narrowing)
    for subset, files in pulled.files.items():
        print(f"{subset}: {len(files)} files, first {files[0] if files else '(none)'}")
    print("\n".join(pulled.notes))
    if "output" in given:
        frames = frames_of(name, pulled, _reader(given))
        _told(write_selection(frames, selection, given["output"]), selection, given["output"])
    return 0


def _select(arguments: Sequence[str]) -> int:
    from mlip.data.pull import write_selection
    from mlip.data.readers import read

    known = ("units", "options", *_SELECTION)
    paths, given, _ = _parse("select", arguments, "INPUT OUTPUT", known, ())
    selection = _selection(given)
    frames = read(paths[0], yaml.safe_load(given.get("units", "null")), **_reader(given))
    _told(write_selection(frames, selection, paths[1]), selection, paths[1])
    return 0


def _told(count: int, selection: Any, output: str) -> None:
    use = "read it with units=ase" if Path(output).suffix else "a store: data=store"
    print(f"{count} frames, {selection.manner}: {output}  ({use})")


def _reader(given: Mapping[str, str]) -> dict[str, Any]:
    from mlip.data.readers.recognize import reader_options

    return reader_options(given)


_SELECTION = ("limit", "elements", "where", "source", "stratify", "seed")


def _selection(given: Mapping[str, str]) -> Any:
    from mlip.data.select import Selection

    return Selection(
        elements=_words(given.get("elements", "")),
        where=_words(given.get("where", "")),
        source=given.get("source", ""),
        limit=_whole("limit", given.get("limit")),
        stratify=given.get("stratify"),
        seed=_whole("seed", given.get("seed")),
    )


def _whole(name: str, text: str | None) -> int | None:
    if text is not None and not text.isdigit():
        raise ValueError(f"{name} is {text!r}: give a whole number")
    return None if text is None else int(text)


def _words(text: str) -> list[str]:
    return [word for word in text.strip("[]").replace(" ", "").split(",") if word]


def _parse(
    verb: str, arguments: Sequence[str], takes: str, options: Sequence[str], flags: Sequence[str]
) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the paths, the ``key=value`` options and the flags of a verb."""
    given = [argument for argument in arguments if argument.startswith("-")]
    rest = [argument for argument in arguments if not argument.startswith("-")]
    paths = [argument for argument in rest if "=" not in argument]
    values = dict(argument.split("=", 1) for argument in rest if "=" in argument)
    unknown = [flag for flag in given if flag not in flags] + sorted(set(values) - set(options))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}{suggest(unknown[0], [*flags, *options])}")
    if len(paths) != len(takes.split()):
        some = "one file" if takes == "FILE" else takes
        raise ValueError(f"mlip data {verb} takes {some}, not {len(paths)}: mlip data --help")
    return paths, values, given


def _quote(path: str) -> str:
    """Return a path as a Hydra override takes it literally."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


ACTIONS: dict[str, Callable[[Sequence[str]], int]] = {
    "inspect": _inspect,
    "doctor": _doctor,
    "pull": _pull,
    "select": _select,
    "convert": _convert,
    "label": _label,
    "sample": _sample,
}

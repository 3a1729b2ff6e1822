"""The verbs of mlip data: inspect, doctor, label."""

from collections.abc import Callable, Sequence
from pathlib import Path

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

    (path,), _, flags = _parse("inspect", arguments, "FILE", (), ("--json",))
    found = inspect(Path(path))
    print(found.to_json() if "--json" in flags else found.to_text())
    return 0


def _doctor(arguments: Sequence[str]) -> int:
    from mlip.data.doctor import doctor

    (path,), options, flags = _parse("doctor", arguments, "FILE", ("units",), ("--json",))
    report = doctor(path, yaml.safe_load(options.get("units", "null")))
    print(report.to_json() if "--json" in flags else report.to_text())
    return report.exit_code


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
    "label": _label,
}

"""The command `mlip benchmark`: every task by every calculator named, then the leaderboard."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from mlip import paths
from mlip.benchmarks.cost import describe_cost
from mlip.benchmarks.environments import is_built
from mlip.benchmarks.leaderboard import boards
from mlip.benchmarks.provenance import NoCheckpointError
from mlip.benchmarks.publish import report
from mlip.benchmarks.record import Record
from mlip.benchmarks.results import read_result
from mlip.benchmarks.runner import Plan, plan, run_plan
from mlip.benchmarks.terminal import print_board
from mlip.config import compose, options
from mlip.errors import suggest

_GROUPS = ("task", "calculator")


def cli_run(overrides: Sequence[str], console: Console | None = None) -> list[Path]:
    """Run ``mlip benchmark <overrides>``; return the files written.

    ``task`` and ``calculator`` take comma lists, or ``all``: every task; every published potential
    that is installed, and the checkpoint if one is given, without the controls and what needs a
    total charge. The word ``report`` alone regenerates the published leaderboard from
    ``benchmarks/*/results/*.json``.
    All names and values are checked before any work starts.

    Raises:
        ValueError: For a wrong name, key or value, with near matches.
        FileNotFoundError: If the checkpoint does not exist.
        ModuleNotFoundError: If the package of a calculator named is not installed.
    """
    console = console or Console()
    if list(overrides) == ["report"]:
        folder = paths.content("benchmarks")
        if not (folder.parent / "pyproject.toml").is_file():
            raise ValueError("the published leaderboard is rebuilt in a checkout of the project")
        return _announce(console, report(sorted(folder.glob("*/results/*.json")), folder))
    plans = plan_sweep(overrides, console)
    for item in plans:
        _announce_cost(console, item)
    results = _run(plans, console)
    output = Path(plans[0].config.output)
    written = report(results, output)
    for board in boards([read_result(path) for path in results]):
        print_board(console, board)
    return _announce(console, written)


def plan_sweep(overrides: Sequence[str], console: Console | None = None) -> list[Plan]:
    """Return one checked plan for each pair of task and calculator in the overrides.

    Raises:
        ValueError: For a wrong name, key or value, or two plans that would share a folder.
    """
    chosen, rest = _split(overrides)
    everything = chosen["calculator"] == ["all"]
    tasks, calculators = _names("task", chosen["task"]), _names("calculator", chosen["calculator"])
    plans: list[Plan] = []
    for calculator in calculators:
        try:
            plans += _plans(calculator, tasks, rest, everything=everything)
        except (ModuleNotFoundError, NoCheckpointError) as error:
            if not everything:
                raise
            if console is not None:
                console.print(f"left out {calculator}: {error}", style="yellow", markup=False)
    if not plans:
        raise ValueError(
            "calculator=all found no calculator: install one, pip install 'mlip-suite[chgnet]'"
        )
    folder, count = Counter(item.folder for item in plans).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} of the runs would write to {folder}: name each calculator once")
    return plans


def _plans(
    calculator: str, tasks: Sequence[str], rest: Sequence[str], everything: bool
) -> list[Plan]:
    found = []
    for task in tasks:
        config = compose("benchmark", [*rest, f"task={task}", f"calculator={calculator}"])
        card = config.calculator.card
        # No benchmark structure states a total charge, so what needs one is only run by name.
        if not (everything and (card.get("control") or card.get("needs"))):
            found.append(_at_hand(plan(config)) if everything else plan(config))
    return found


def _at_hand(item: Plan) -> Plan:
    """Refuse what ``calculator=all`` does not start by itself: installations and downloads."""
    if item.environment is None and not is_built(item.requirements, item.links):
        raise ModuleNotFoundError(
            f"{', '.join(item.requirements)} not met here, and no environment built for it yet: "
            "name the calculator to build one"
        )
    if "url" in (item.calculator["card"].get("weights") or {}):
        raise NoCheckpointError("its weights are downloaded: name the calculator to run it")
    return item


def _split(overrides: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Separate the two swept groups from the overrides that every run takes."""
    chosen: dict[str, list[str]] = {}
    rest: list[str] = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(
                f"{override!r} is not of the form key=value; "
                "write for instance task=surface_energy, or the word report alone"
            )
        if key in _GROUPS:
            chosen[key] = [name.strip() for name in value.split(",") if name.strip()]
        elif key in ("checkpoint", "output", "cases") and not value.startswith(("'", '"')):
            rest.append(f"{key}='{value}'" if value not in ("", "null") else override)
        else:
            rest.append(override)
    defaults = {"task": ["surface_energy"], "calculator": ["chgnet_0_3_0"]}
    return {**defaults, **chosen}, rest


def _names(group: str, names: Sequence[str]) -> list[str]:
    known = options(group)
    if list(names) == ["all"]:
        return known
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {group} {name!r}{suggest(name, [*known, 'all'])}")
    if not names:
        raise ValueError(f"{group}= is empty: give one of {', '.join(known)}, or all")
    return list(names)


def _run(plans: Sequence[Plan], console: Console) -> list[Path]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    disable = not plans[0].config.progress
    with Progress(*columns, console=console, disable=disable) as progress:
        total = progress.add_task("all", total=sum(len(item.wanted) for item in plans), note="")
        return [run_plan(item, _advance(progress, item, total)) for item in plans]


def _advance(progress: Progress, item: Plan, total: TaskID) -> Callable[[Record], None]:
    name = f"{item.task.name} · {item.calculator['card']['label']}"
    bar = progress.add_task(name, total=len(item.wanted), note="")
    failed = Counter()

    def advance(record: Record) -> None:
        failed.update([record.status] if record.status != "ok" else [])
        note = ", ".join(f"{count} {status}" for status, count in failed.items())
        progress.update(bar, advance=1, note=note)
        progress.advance(total)

    return advance


def _announce_cost(console: Console, item: Plan) -> None:
    name = item.calculator["name"]
    cost = describe_cost(item.task.name, name, item.wanted, item.config.workers)
    console.print(f"{item.task.name} · {name}: {cost}", markup=False, highlight=False)
    if item.environment is None and not is_built(item.requirements, item.links):
        console.print(
            f"  its environment is built first, once, which takes minutes: "
            f"{', '.join(item.requirements)}",
            markup=False,
            highlight=False,
        )


def _announce(console: Console, written: list[Path]) -> list[Path]:
    for path in written:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    return written

"""Run one task with one calculator: resumable, with every failure as a record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase.io.jsonio import encode
from omegaconf import DictConfig, OmegaConf

from mlip import paths
from mlip.benchmarks import provenance
from mlip.benchmarks.cases import Case
from mlip.benchmarks.checkpoint import checkpoint_card
from mlip.benchmarks.environments import Environment, choose, environment
from mlip.benchmarks.pool import Pool
from mlip.benchmarks.process import Worker, WorkerLostError
from mlip.benchmarks.record import Journal, Record, open_journal
from mlip.benchmarks.results import read_records, write_results
from mlip.benchmarks.task import Task, load_task
from mlip.calculators.build import ALLOWED
from mlip.paths import check_folder
from mlip.runtime import check_device

_RETRIED = ("error", "oom")
_FROM_WORKER = (
    "status",
    "value",
    "detail",
    "steps",
    "fmax",
    "max_displacement",
    "wall_time",
    "peak_memory",
    "peak_gpu_memory",
    "extra",
)

Advance = Callable[[Record], None]


@dataclass(frozen=True)
class Plan:
    """One task and one calculator, checked: nothing in it can fail for a wrong name any more.

    Args:
        config: The composed ``benchmark`` config.
        task: The task with its cases.
        wanted: The (case, mode) pairs of this run.
        calculator: The calculator config, resolved.
        identity: What determines its numbers; empty until its environment is built.
        environment: Where it runs; None as long as an environment of its own may have to be built.
    """

    config: DictConfig
    task: Task
    wanted: list[tuple[Case, str]]
    calculator: dict[str, Any]
    identity: dict[str, Any]
    environment: Environment | None = None

    @property
    def requirements(self) -> list[str]:
        """Return the pip requirements of the calculator."""
        return list(self.calculator["card"].get("requirements") or ())

    @property
    def links(self) -> list[str]:
        """Return where else than in the index its wheels are found."""
        return list(self.calculator["card"].get("find_links") or ())

    @property
    def folder(self) -> Path:
        """Return the folder of this task and calculator within the run folder."""
        return Path(self.config.output) / self.task.name / self.calculator["name"]

    def hashes(self) -> dict[str, tuple[Case, str]]:
        """Return input hash to (case, mode) of every case of every tier."""
        return {
            provenance.input_hash(self.task, case, mode, self.identity): (case, mode)
            for case in self.task.cases
            for mode in case.tiers
        }


def plan(config: DictConfig) -> Plan:
    """Check a composed config and load what it names, without starting anything.

    Raises:
        ValueError: For a wrong value, naming the field.
        FileNotFoundError: If the checkpoint does not exist.
        ModuleNotFoundError: If the package of the calculator is not installed, and no environment
            of its own may be built.
    """
    settings: Any = OmegaConf.to_container(config.task, resolve=True)
    task = load_task(settings, config.cases)
    calculator: Any = OmegaConf.to_container(config.calculator, resolve=True)
    target = str(calculator["build"].get("_target_"))
    if not target.startswith(ALLOWED):
        raise ValueError(
            f"calculator.build._target_ is {target!r}: only names that begin with "
            f"{' or '.join(ALLOWED)} are built"
        )
    _check_values(config)
    modes = [config.modes] if isinstance(config.modes, str) else list(config.modes)
    wanted = task.select(config.tier, modes, config.limit)
    if choose(calculator["card"], config.environment):
        return Plan(config, task, wanted, calculator, {})
    identity = provenance.identity(calculator)
    weights = calculator["card"].get("weights") or {}
    if weights and not {"package", "url"} & set(weights):  # ours: it knows its own card
        calculator["card"] |= checkpoint_card(Path(weights["file"]))
    return Plan(config, task, wanted, calculator, identity, Environment())


def _check_values(config: DictConfig) -> None:
    for key in ("timeout_s", "start_timeout_s", "environment_timeout_s", "threads"):
        if not isinstance(config[key], int | float) or config[key] <= 0:
            raise ValueError(f"{key} is {config[key]!r}: give a number above zero")
    if not isinstance(config.workers, int) or config.workers < 1:
        raise ValueError(f"workers is {config.workers!r}: give at least 1")
    check_device(str(config.device))
    check_folder(Path(config.output))
    if config.record and config.limit is not None:
        raise ValueError("record=true with a limit: a part of a tier is no result; drop one")
    if config.record and config.cases is not None:
        raise ValueError("record=true with cases of your own: they are no published task; drop one")


def prepare(plan: Plan) -> Plan:
    """Return the plan with its environment, which is built if need be.

    An environment that cannot be built is no error: every case gets a record that says why.
    """
    if plan.environment is not None:
        return plan
    found = environment(plan.requirements, plan.links, float(plan.config.environment_timeout_s))
    identity = provenance.failed_identity(plan.calculator)
    if not found.problem:
        try:
            identity = provenance.identity(plan.calculator, found)
        except (ModuleNotFoundError, FileNotFoundError) as error:
            found = replace(found, problem=f"its requirements do not give what it needs: {error}")
    return replace(plan, identity=identity, environment=found)


def run_plan(plan: Plan, advance: Advance | None = None) -> Path:
    """Run what is not yet finished and write ``result.json``; return its path.

    Args:
        plan: From :func:`plan`.
        advance: Called with every record, kept or new; for a progress bar.
    """
    advance = advance or (lambda record: None)
    plan = prepare(plan)
    hashes = plan.hashes()
    wanted = [key for key, pair in hashes.items() if pair in _pairs(plan.wanted)]
    with open_journal(plan.folder / "records.jsonl") as journal:
        finished = {record.input_hash: record for record in journal.records}
        if plan.config.retry_failed:
            finished = {k: v for k, v in finished.items() if v.status not in _RETRIED}
        for key in wanted:
            if key in finished:
                advance(finished[key])
        todo = [key for key in wanted if key not in finished]
        _run(plan, {key: hashes[key] for key in todo}, journal, advance)
        records = {record.input_hash: record for record in journal.records}
    return _write(plan, hashes, records)


def run_benchmark(config: DictConfig) -> Path:
    """Run one composed ``benchmark`` config; return the path of its ``result.json``.

    Raises:
        ValueError: For a wrong value in the config. A failure of the calculator is a record.
    """
    return run_plan(plan(config))


def _pairs(wanted: list[tuple[Case, str]]) -> "_Pairs":
    return _Pairs({(case.name, mode) for case, mode in wanted})


class _Pairs:
    """Membership of (case, mode) by name; an Atoms object cannot be hashed."""

    def __init__(self, names: set[tuple[str, str]]) -> None:
        self.names = names

    def __contains__(self, pair: tuple[Case, str]) -> bool:
        return (pair[0].name, pair[1]) in self.names


def _run(
    plan: Plan, todo: Mapping[str, tuple[Case, str]], journal: Journal, advance: Advance
) -> None:
    """Compute the cases by the workers of this plan, each record on the disk as it comes."""

    def deliver(key: Any, result: dict[str, Any]) -> None:
        record = _record(plan, key, *todo[key], result)
        journal.append(record)
        advance(record)

    pool = Pool(lambda number: _start(plan, number), deliver, plan.config.timeout_s)
    pool.run({key: _message(*pair) for key, pair in todo.items()}, plan.config.workers)


def _start(plan: Plan, number: int) -> tuple[Worker | None, dict[str, Any] | None]:
    if plan.environment is not None and plan.environment.problem:
        return None, {"status": "error", "detail": f"no environment: {plan.environment.problem}"}
    job = {
        "build": plan.calculator["build"],
        "property": plan.task.property,
        "protocol": plan.task.protocol,
        "elements": plan.calculator["card"].get("elements"),
        "threads": plan.config.threads,
    }
    log = plan.folder / (f"worker_{number}.log" if number else "worker.log")
    try:
        worker = Worker(job, log, plan.config.start_timeout_s, plan.environment)
    except WorkerLostError as error:
        return None, {"status": error.status, "detail": f"at construction: {error}"}
    if worker.hello["status"] == "ready":
        return worker, None
    worker.stop()
    return None, {**worker.hello, "detail": f"at construction: {worker.hello['detail']}"}


def _message(case: Case, mode: str) -> dict[str, Any]:
    """Copies carry no DFT energy."""
    partner = None if case.partner is None else encode(case.partner.copy())
    return {"structure": encode(case.structure.copy()), "partner": partner, "mode": mode}


def _record(plan: Plan, key: str, case: Case, mode: str, result: Mapping[str, Any]) -> Record:
    shared = (plan.environment or Environment()).shared_versions()
    return Record(
        task=plan.task.name,
        case=case.name,
        mode=mode,
        calculator=plan.calculator["name"],
        input_hash=key,
        reference=case.reference,
        uncertainty=case.uncertainty,
        unit=plan.task.card["quantity"]["unit"],
        atoms=len(case.structure),
        checkpoint_hash=plan.identity["checkpoint_hash"],
        versions={**shared, **plan.identity["versions"]},
        dtype=result.get("dtype") or plan.calculator["card"].get("dtype"),
        device=str(plan.config.device),
        threads=plan.config.threads,
        processor=provenance.processor(),
        tags=_tags(case),
        **{name: result[name] for name in _FROM_WORKER if name in result},
    )


def _write(plan: Plan, hashes: Mapping[str, tuple[Case, str]], records: dict[str, Record]) -> Path:
    """Write what is known of this calculator as it is now, over all tiers and modes."""
    ordered = _current(records, hashes)
    path = write_results(plan.folder / "result.json", plan.task.card, plan.calculator, ordered)
    if plan.config.record:
        name = f"{plan.calculator['name']}.json"
        published = paths.content("benchmarks") / plan.task.name / "results" / name
        kept = {r.input_hash: r for r in read_records(published)} if published.exists() else {}
        ordered = _current(kept | records, hashes)
        write_results(published, plan.task.card, plan.calculator, ordered)
    return path


def _current(records: Mapping[str, Record], hashes: Mapping[str, tuple[Case, str]]) -> list[Record]:
    """Return the records in the order of the cases, with references and tags as they are now."""
    return [
        replace(
            records[key], reference=case.reference, uncertainty=case.uncertainty, tags=_tags(case)
        )
        for key, (case, _) in hashes.items()
        if key in records
    ]


def _tags(case: Case) -> dict[str, Any]:
    return {**case.tags, "scored": case.scored, "tiers": case.tiers}

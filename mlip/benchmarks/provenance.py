"""What identifies a result: weights, versions, structures, protocol."""

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip.benchmarks.cases import Case
from mlip.benchmarks.environments import Environment
from mlip.benchmarks.task import Task
from mlip.properties.softening import REFERENCE_FORCES

DIGITS = 8
"""Decimals of positions and cells, Å, that enter a hash."""


class NoCheckpointError(ValueError):
    """The calculator scores a file, and none was given."""


def weights_file(card: Mapping[str, Any], environment: Environment | None = None) -> Path | None:
    """Return the file with the weights of a calculator card; None if it has none at hand.

    Weights that a package downloads are named by their ``url`` only.

    Raises:
        ValueError: If the card wants a checkpoint and none is given.
        FileNotFoundError: If the file does not exist.
        ModuleNotFoundError: If the package that ships it is not installed.
    """
    weights = card.get("weights")
    if not weights or ("url" in weights and "file" not in weights):
        return None
    if weights.get("file") is None:
        raise NoCheckpointError(
            "checkpoint is null: give the file to score, checkpoint=runs/<name>/best.safetensors"
        )
    path = Path(weights["file"])
    if "package" in weights:
        path = _package(weights["package"], card, environment or Environment()) / path
    if not path.is_file():
        name = str(weights["file"])
        raise FileNotFoundError(f"checkpoint {name!r} does not exist: check the path")
    return path


def file_hash(path: Path | None) -> str | None:
    """Return the SHA-256 of a file; None for None."""
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def requirement_versions(
    requirements: Iterable[str], environment: Environment | None = None
) -> dict[str, str]:
    """Return the installed version of each pip requirement.

    Raises:
        ModuleNotFoundError: If one is not installed.
    """
    found = {}
    for requirement in requirements:
        name = re.split(r"[\s<>=!~\[;@]", requirement, maxsplit=1)[0]
        number = (environment or Environment()).version(name)
        if number is None:
            raise ModuleNotFoundError(
                f"the package {name!r} is not installed: pip install '{requirement}'", name=name
            )
        found[name] = number
    return found


def identity(
    calculator: Mapping[str, Any], environment: Environment | None = None
) -> dict[str, Any]:
    """Return what determines the numbers of a calculator: arguments, weights, package versions.

    The path of a checkpoint is left out: its contents count, not its place.
    """
    card = calculator["card"]
    path = weights_file(card, environment)
    build = {key: value for key, value in calculator["build"].items() if not _is(value, path)}
    return {
        "build": build,
        "checkpoint_hash": file_hash(path),
        "versions": requirement_versions(card.get("requirements") or (), environment),
    }


def input_hash(task: Task, case: Case, mode: str, identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of structure, partner, protocol and calculator of one record.

    The thresholds of the relaxation enter for the mode relaxed only.
    """
    content = {
        "task": task.name,
        "case": case.name,
        "property": task.property,
        "mode": mode,
        "protocol": task.protocol if mode == "relaxed" else None,
        "structure": _canonical(case.structure),
        "bulk": None if case.partner is None else _canonical(case.partner),
        "calculator": identity,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def failed_identity(calculator: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a calculator whose environment could not be built."""
    return {"build": dict(calculator["build"]), "checkpoint_hash": None, "versions": {}}


def _is(value: Any, path: Path | None) -> bool:
    return path is not None and isinstance(value, str) and Path(value) == path


def _package(name: str, card: Mapping[str, Any], environment: Environment) -> Path:
    found = environment.package_folder(name)
    if found is None:
        extra = card.get("extra", name)
        raise ModuleNotFoundError(
            f"the calculator {card.get('label', name)!r} needs the package {name}: "
            f"pip install 'mlip-suite[{extra}]'",
            name=name,
        )
    return found


def _canonical(atoms: Atoms) -> dict[str, Any]:
    content = {
        "numbers": atoms.numbers.tolist(),
        "positions": (atoms.positions.round(DIGITS) + 0.0).tolist(),  # + 0.0: no negative zero
        "cell": (atoms.cell.array.round(DIGITS) + 0.0).tolist(),
        "pbc": atoms.pbc.tolist(),
        "normal_axis": atoms.info.get("normal_axis"),
    }
    if REFERENCE_FORCES in atoms.arrays:
        content[REFERENCE_FORCES] = atoms.arrays[REFERENCE_FORCES].round(DIGITS).tolist()
    return content


@cache
def processor() -> str:
    """Return the model of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match.group(1).strip()
    return platform.processor() or platform.machine()

"""Result files: the records of one task and one calculator with what a reader needs beside them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlip.benchmarks.record import Record

SCHEMA = 1
_EMPTY: tuple[Any, ...] = (None, {})
_HOISTED = (
    "task",
    "calculator",
    "unit",
    "uncertainty",
    "checkpoint_hash",
    "versions",
    "dtype",
    "device",
    "threads",
    "processor",
)
_DECIMALS = {
    "value": 6,
    "fmax": 5,
    "max_displacement": 5,
    "wall_time": 4,
    "peak_memory": 1,
    "peak_gpu_memory": 1,
}
_EXTRA_DECIMALS = 5
_PUBLIC = (
    "label",
    "control",
    "functional",
    "training_sets",
    "parameters",
    "dtype",
    "code_licence",
    "weights_licence",
    "source",
    "citation",
    "requirements",
)


@dataclass(frozen=True)
class Result:
    """One result file.

    Args:
        task: Card of the task.
        calculator: Name and card of the calculator.
        records: Its records.
    """

    task: dict[str, Any]
    calculator: dict[str, Any]
    records: list[Record]


def write_results(
    path: Path,
    task_card: Mapping[str, Any],
    calculator: Mapping[str, Any],
    records: Sequence[Record],
) -> Path:
    """Write a result file; what all records share is written once. The file appears whole.

    Paths and element lists of the calculator card are left out: the file is to be published.
    """
    rows = [_rounded(record.to_dict()) for record in records]
    common = {
        key: rows[0][key]
        for key in _HOISTED
        if rows and all(row[key] == rows[0][key] for row in rows)
    }
    card = {key: value for key, value in calculator["card"].items() if key in _PUBLIC}
    content = {
        "schema": SCHEMA,
        "task": dict(task_card),
        "calculator": {"name": calculator["name"], **card},
        "common": common,
        "records": [
            {
                key: value
                for key, value in row.items()
                if key not in common and value not in (None, {})
            }
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    lines = json.dumps({**content, "records": []}, ensure_ascii=False, indent=1)
    body = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in content["records"])
    head, tail = lines.rsplit("[]", 1)
    draft.write_text(f"{head}[\n  {body}\n ]{tail}\n", encoding="utf-8")
    draft.replace(path)
    return path


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ValueError: If it is damaged or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, expected {SCHEMA}")
        records = [Record.from_dict({**content["common"], **row}) for row in content["records"]]
        return Result(content["task"], content["calculator"], records)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.name} in {path.parent} cannot be read as a result ({error}): "
            "remove it and run the benchmark again"
        ) from error


def read_records(path: Path) -> list[Record]:
    """Read the records of a result file."""
    return read_result(path).records


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    for key, decimals in _DECIMALS.items():
        if row[key] is not None:
            row[key] = round(row[key], decimals)
    row["extra"] = {key: round(value, _EXTRA_DECIMALS) for key, value in row["extra"].items()}
    return row

"""The process that holds one calculator: cases in, one JSON line of results each, out.

Run as ``python -m mlip.benchmarks.worker``; the first line on stdin describes the calculator, every
further line is a case. Nothing here knows of references or files, so that any environment with
ASE, this package and the calculator can run it.
"""

import io
import json
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from ase import Atoms
from ase.io.jsonio import decode

from mlip.calculators.build import build_calculator
from mlip.errors import UnsupportedElementError
from mlip.properties.excess import BulkReference, Mode, bulk_reference
from mlip.properties.relax import (
    ExplodedError,
    NonFiniteError,
    NotConvergedError,
    PropertyError,
    Protocol,
)

_MIB = 2**20
_STATUS: tuple[tuple[type[Exception], str], ...] = (
    (UnsupportedElementError, "unsupported_element"),
    (NonFiniteError, "nan"),
    (NotConvergedError, "not_converged"),
    (ExplodedError, "exploded"),
    (MemoryError, "oom"),
)


class Session:
    """One calculator, the property it is asked for, and the bulk references it has computed."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.calculator: Any = build_calculator(job["build"])
        module, _, name = job["property"].rpartition(".")
        self.property: Callable[..., Any] = getattr(import_module(module), name)
        self.protocol = Protocol(**job["protocol"])
        listed = getattr(self.calculator, "supported_elements", None) or job["elements"]
        self.elements = set(listed) if listed else None
        self.references: dict[str, BulkReference | Exception] = {}

    def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """Return the result of one case: a value, or a status and why."""
        mode = case["mode"]
        structures = [_atoms(case[key]) for key in ("structure", "partner") if case[key]]
        try:
            self._check_elements(*structures)
            inputs: list[Any] = structures[:1]
            if case["partner"]:
                inputs.append(self._reference(mode + case["partner"], structures[1], mode))
            found = self.property(*inputs, self.calculator, mode=mode, protocol=self.protocol)
        except Exception as error:  # a failure of a calculator is a row, whatever it is
            return failure(error)
        extra = {key: float(value) for key, value in getattr(found, "extra", {}).items()}
        return {"status": "ok", "value": found.value, "extra": extra, **_reached(found.result)}

    def _reference(self, key: str, bulk: Atoms, mode: Mode) -> BulkReference:
        """Compute each partner once, also when it fails: the failure holds for all its cases."""
        if key not in self.references:
            try:
                self.references[key] = bulk_reference(bulk, self.calculator, mode, self.protocol)
            except PropertyError as error:
                self.references[key] = error
        reference = self.references[key]
        if isinstance(reference, Exception):
            raise reference
        return reference

    def _check_elements(self, *structures: Atoms) -> None:
        if self.elements is None:
            return
        unknown = {symbol for atoms in structures for symbol in atoms.symbols} - self.elements
        if unknown:
            raise UnsupportedElementError(
                f"the potential does not know {', '.join(sorted(unknown))}; it knows "
                f"{', '.join(sorted(self.elements)[:12])}{' …' * (len(self.elements) > 12)}"
            )


def failure(error: BaseException) -> dict[str, Any]:
    """Return the status and the text of an error."""
    status = next((name for kind, name in _STATUS if isinstance(error, kind)), "error")
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported here
        status = "oom"
    text = str(error).strip()[:600]
    known = isinstance(error, PropertyError | UnsupportedElementError)
    result = {"status": status, "detail": text if known else f"{type(error).__name__}: {text}"}
    if isinstance(error, PropertyError) and error.reached is not None:
        result |= _reached(error.reached)
    return result


def main() -> None:
    """Build the calculator, answer ``ready``, then answer every case in turn."""
    answers, lines = _take_stdout(), _read_stdin()
    job = json.loads(lines.get() or "null")
    try:
        session = Session(job)
        _fix_threads(job["threads"])
    except Exception as error:  # the calculator cannot be built: every case gets this row
        _send(answers, failure(error))
        return
    facts = _facts(session.calculator)
    _send(answers, {"status": "ready"})
    while (line := lines.get()) is not None:
        _reset_peak()
        start = time.perf_counter()
        result = session.run(json.loads(line))
        _send(answers, {**result, **facts, "wall_time": time.perf_counter() - start, **_peak()})


def _atoms(text: str) -> Atoms:
    atoms = decode(text)
    if not isinstance(atoms, Atoms):
        raise TypeError(f"a structure was sent as {type(atoms).__name__}")
    return atoms


def _reached(result: Any) -> dict[str, Any]:
    numbers = {"fmax": result.fmax, "max_displacement": result.max_displacement}
    finite = {key: value for key, value in numbers.items() if abs(value) < float("inf")}
    return {"steps": result.steps, **finite}


def _facts(calculator: Any) -> dict[str, Any]:
    """What only the built calculator can tell; the card fills the rest."""
    dtype = getattr(calculator, "dtype", None)
    return {"dtype": None if dtype is None else str(dtype).removeprefix("torch.")}


def _fix_threads(threads: int) -> None:
    # Only where the calculator brought torch with it: importing it takes seconds.
    if "torch" in sys.modules:
        from mlip.runtime import set_threads

        set_threads(threads)


def _take_stdout() -> IO[str]:
    """Keep the real stdout for answers, and send what models print to stderr."""
    private = os.dup(1)
    os.dup2(2, 1)
    return io.TextIOWrapper(os.fdopen(private, "wb"), encoding="utf-8", write_through=True)


def _send(stream: IO[str], answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def _read_stdin() -> "queue.Queue[str | None]":
    """Read in a thread, so that a worker whose runner was killed ends even in the middle of a case.

    An empty line asks for the end; the end of the file without it means that the runner is gone.
    """
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            if not line.strip():
                lines.put(None)
                return
            lines.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _reset_peak() -> None:
    with suppress(OSError):  # Linux only; elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> dict[str, float]:
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmHWM"))
        peak = int(line.split()[1]) * 1024 / _MIB
    found = {"peak_memory": peak}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["peak_gpu_memory"] = torch.cuda.max_memory_allocated() / _MIB
    return found


if __name__ == "__main__":
    main()

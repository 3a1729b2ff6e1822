"""Processes that each hold one calculator; one that dies or hangs costs its frame only."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from mlip.calculators.build import build_calculator

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_START_TIMEOUT = 300.0

Answer = dict[str, Any]
Task = tuple[int, Atoms]


def compute(
    tasks: Iterable[Task], build: Mapping[str, Any], workers: int, threads: int, timeout_s: float
) -> Iterator[tuple[int, Answer]]:
    """Yield ``(index, answer)`` in the order of completion.

    Args:
        tasks: Index and structure of each frame; taken as processes become free, never all.
        build: ``build:`` block of the calculator.
        workers: Number of processes.
        threads: Threads of each process.
        timeout_s: Longest time for one frame, s; the process is then replaced.

    Yields:
        ``{"labels": {...}}`` in internal units, or ``{"failure": message}``.

    Raises:
        ValueError: If the calculator cannot be built, with its own message.
    """
    left = iter(tasks)
    pool = [_Worker(build, threads) for _ in range(workers)]
    try:
        for worker in pool:
            worker.require_ready()
        busy = [worker for worker in pool if worker.start(left)]
        while busy:
            for worker, answer in _answers(busy, timeout_s):
                yield worker.index, answer
                if not worker.alive:
                    worker.restart()
                if not worker.start(left):
                    busy.remove(worker)
    finally:
        for worker in pool:
            worker.stop()


def labels_of(calculator: BaseCalculator, atoms: Atoms) -> dict[str, Any]:
    """Return every label that the calculator offers, in internal units, as plain lists.

    Raises:
        ValueError: If a label is not finite.
    """
    atoms.calc = calculator
    offered = getattr(calculator, "implemented_properties", ("energy", "forces"))
    readers: dict[str, Callable[[], Any]] = {
        "energy": atoms.get_potential_energy,
        "forces": atoms.get_forces,
        "stress": lambda: voigt_6_to_full_3x3_stress(atoms.get_stress()),
        "charges": atoms.get_charges,
        "magmoms": atoms.get_magnetic_moments,
        "dipole": atoms.get_dipole_moment,
    }
    # A stress needs a volume, a dipole a finite cloud of charge.
    meaningless = {"stress": not atoms.pbc.all(), "dipole": bool(atoms.pbc.any())}
    labels = {}
    for name, reader in readers.items():
        if name not in offered or meaningless.get(name, False):
            continue
        try:
            values = np.asarray(reader(), dtype=float)
        except PropertyNotImplementedError:
            if name == "energy":
                raise
            continue  # ASE's own calculators offer more than they give
        if not np.isfinite(values).all():
            raise ValueError(f"{name} is not finite")
        labels[name] = values.tolist()
    return labels


@dataclass
class _Worker:
    build: Mapping[str, Any]
    threads: int
    index: int = -1
    started: float = 0.0
    process: Any = field(init=False)
    link: Connection = field(init=False)

    def __post_init__(self) -> None:
        self._spawn()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def start(self, left: Iterator[Task]) -> bool:
        """Take the next task; False when there is none."""
        task = next(left, None)
        if task is None:
            return False
        self.index, self.started = task[0], time.monotonic()
        with suppress(OSError):  # it died between two frames: receive() finds the end of the pipe
            self.link.send(task[1])
        return True

    def receive(self) -> Answer:
        try:
            return self.link.recv()
        except (EOFError, OSError):
            self.process.join()
            return {"failure": f"the process ended with code {self.process.exitcode}"}

    def require_ready(self) -> None:
        if not self.link.poll(_START_TIMEOUT):
            raise ValueError(f"the calculator was not built within {_START_TIMEOUT:g} s")
        answer = self.receive()
        if "failure" in answer:
            raise ValueError(f"the calculator cannot be built: {answer['failure']}")

    def restart(self) -> None:
        self.stop()
        self._spawn()
        self.require_ready()

    def stop(self) -> None:
        self.link.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.link, other = context.Pipe()
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, str(self.threads)))
        try:  # the libraries read these when they are loaded, in the new process
            arguments = (other, dict(self.build), self.threads)
            self.process = context.Process(target=_serve, args=arguments, daemon=True)
            self.process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        other.close()


def _answers(busy: list[_Worker], timeout_s: float) -> list[tuple[_Worker, Answer]]:
    ready = wait([worker.link for worker in busy], timeout=1.0)
    found = [(worker, worker.receive()) for worker in busy if worker.link in ready]
    now = time.monotonic()
    for worker in busy:
        if worker.link not in ready and now - worker.started > timeout_s:
            worker.process.kill()
            worker.process.join()
            found.append((worker, {"failure": f"no answer within {timeout_s:g} s"}))
    return found


def _serve(link: Connection, build: Mapping[str, Any], threads: int) -> None:
    """Build the calculator, then answer structures until the other end closes."""
    try:
        calculator = build_calculator(build)
    except Exception as error:
        link.send({"failure": str(error)})
        return
    link.send({})
    while True:
        try:
            atoms = link.recv()
        except EOFError:
            return
        try:
            answer: Answer = {"labels": labels_of(calculator, atoms)}
        except Exception as error:  # a failure becomes a recorded row
            answer = {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
        link.send(answer)

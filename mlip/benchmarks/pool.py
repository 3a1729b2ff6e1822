"""Several workers on one list of cases; a lost worker costs its case and is replaced."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mlip.benchmarks.process import Worker, WorkerLostError

Result = dict[str, Any]


@dataclass
class Pool:
    """What the workers of one calculator share.

    Args:
        start: Starts the worker of a number; gives it, or the result that every case gets since
            the calculator cannot be built.
        deliver: Takes the key and the result of each case; never called twice at a time.
        timeout: For one case, s.
    """

    start: Callable[[int], tuple[Worker | None, Result | None]]
    deliver: Callable[[Hashable, Result], None]
    timeout: float
    _todo: deque[tuple[Hashable, Mapping[str, Any]]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _workers: dict[int, Worker] = field(default_factory=dict)
    _hopeless: Result | None = None
    _stopped: bool = False

    def run(self, messages: Mapping[Hashable, Mapping[str, Any]], workers: int) -> None:
        """Ask the workers for every message, each at most once, in order.

        One worker runs in this thread; several take the next case as soon as they are free. If
        none can be started (any more), the cases left get the reason.
        """
        self._todo.extend(messages.items())
        count = max(1, min(workers, len(messages)))
        try:
            if count == 1:
                self._serve(0)
            else:
                with ThreadPoolExecutor(count) as threads:
                    for done in [threads.submit(self._guarded, number) for number in range(count)]:
                        done.result()
            while self._todo and self._hopeless is not None:
                self.deliver(self._todo.popleft()[0], self._hopeless)
        finally:
            self._stop()

    def _guarded(self, number: int) -> None:
        try:
            self._serve(number)
        except BaseException:
            self._stop()  # the other threads end too, and the error rises
            raise

    def _serve(self, number: int) -> None:
        while not self._stopped:
            with self._lock:
                if not self._todo:
                    return
            if number not in self._workers and not self._begin(number):
                return
            with self._lock:
                if not self._todo:
                    return
                key, message = self._todo.popleft()
            self._ask(number, key, message)

    def _begin(self, number: int) -> bool:
        worker, hopeless = self.start(number)
        if worker is None:
            self._hopeless = hopeless
            return False
        self._workers[number] = worker
        return True

    def _ask(self, number: int, key: Hashable, message: Mapping[str, Any]) -> None:
        try:
            result = self._workers[number].ask(dict(message), self.timeout)
        except WorkerLostError as error:
            result = {"status": error.status, "detail": str(error)}
            self._workers.pop(number).kill()
        with self._lock:
            if not self._stopped:
                self.deliver(key, result)

    def _stop(self) -> None:
        self._stopped = True
        for worker in list(self._workers.values()):
            worker.stop()
        self._workers.clear()

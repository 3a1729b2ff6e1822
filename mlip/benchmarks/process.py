"""The runner's end of a worker: start it, ask it, and outlive it."""

import json
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from mlip.benchmarks.environments import Environment

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TAIL = 300
_OOM_COUNTER = Path("/sys/fs/cgroup/memory.events")


class WorkerLostError(RuntimeError):
    """The worker died or did not answer; ``status`` is what its case gets."""

    def __init__(self, message: str, status: str = "error") -> None:
        super().__init__(message)
        self.status = status


class Worker:
    """A process with one calculator; ``ask`` sends it a case and waits for the answer.

    Args:
        job: What ``mlip.benchmarks.worker`` builds: build, property, protocol, elements, threads.
        log: File that takes whatever the process prints.
        start_timeout: For the construction of the calculator, s.
        environment: Where it runs; this process's own if None.

    Raises:
        WorkerLostError: If it dies or hangs before it is ready.
    """

    def __init__(
        self,
        job: dict[str, Any],
        log: Path,
        start_timeout: float,
        environment: Environment | None = None,
    ) -> None:
        environment = environment or Environment()
        self._oom_kills = _oom_kills()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [environment.python, "-m", "mlip.benchmarks.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={
                    **environment.variables(),
                    **dict.fromkeys(_THREAD_VARIABLES, str(job["threads"])),
                },
            )
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.hello = self.ask(job, start_timeout)

    def ask(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send one message and return the answer.

        Raises:
            WorkerLostError: If the process dies, or gives no answer within ``timeout`` seconds; it
                is ended then.
        """
        start = time.perf_counter()
        try:
            stdin = self._process.stdin
            if stdin is None:
                raise BrokenPipeError
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()
            answer = self._answers.get(timeout=timeout)
        except BrokenPipeError:
            answer = None
        except queue.Empty:
            self.kill()
            raise WorkerLostError(
                f"no answer within {timeout:g} s: the worker was ended; raise timeout_s if the "
                "case is only slow"
            ) from None
        if answer is None:
            raise self._death(time.perf_counter() - start)
        return json.loads(answer)

    def stop(self) -> None:
        """Ask the process to end, and make sure that it does."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()
            self._process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            pass
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put(None)

    def _death(self, after: float) -> WorkerLostError:
        code = self._process.wait()
        said = self._last_words()
        if code < 0:
            name = signal.Signals(-code).name
            if code == -signal.SIGKILL and _oom_kills() > self._oom_kills:
                return WorkerLostError(f"the kernel ended the worker: out of memory{said}", "oom")
            return WorkerLostError(f"the worker was ended by {name} after {after:.1f} s{said}")
        return WorkerLostError(f"the worker exited with code {code} after {after:.1f} s{said}")

    def _last_words(self) -> str:
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            text = file.read().decode(errors="replace").strip()
        return f"; it last said: {text[-_TAIL:]}" if text else ""


def _oom_kills() -> int:
    if not _OOM_COUNTER.is_file():
        return 0
    counts = dict(line.split() for line in _OOM_COUNTER.read_text().splitlines())
    return int(counts.get("oom_kill", 0))

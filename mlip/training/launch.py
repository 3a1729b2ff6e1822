"""The processes of a run, one a device: started here, or by srun or torchrun."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lightning.fabric.plugins.environments.lightning import find_free_network_port
from omegaconf import DictConfig, OmegaConf

import mlip
from mlip.errors import DivergedError

_USER_ERRORS = (ValueError, FileNotFoundError, ModuleNotFoundError, DivergedError)
_PROGRAM = ("-m", "mlip.training.launch")
_GRACE = 10.0  # s in which the first process may fail by itself, after another did
_LOCAL = "MLIP_LOCAL_PROCESSES"


def torchrun_processes() -> int:
    """Return how many processes torchrun has started for this run; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def slurm_processes() -> int:
    """Return how many tasks srun has started for this step; 1 without it."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def local_processes() -> int:
    """Return how many processes of this run share the cores of this machine."""
    for name in (_LOCAL, "LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"):
        if name in os.environ:
            return int(os.environ[name].split("(")[0].split(",")[0])
    return 1


def check(config: DictConfig, devices: int) -> None:
    """Refuse numbers of devices that do not fit the processes that are there.

    Args:
        config: Config of the run.
        devices: Devices of this machine.

    Raises:
        ValueError: Naming what was started and what the config asks for.
    """
    nodes = config.trainer.num_nodes
    started, starter = max((torchrun_processes(), "torchrun"), (slurm_processes(), "SLURM"))
    if started > 1 and started != devices * nodes:
        raise ValueError(
            f"{starter} started {started} processes, but trainer.devices={devices} and "
            f"trainer.num_nodes={nodes} ask for {devices * nodes}: give the devices of a machine "
            "and the number of machines, or start one task"
        )
    if started == 1 and nodes > 1 and _LOCAL not in os.environ:
        raise ValueError(
            f"trainer.num_nodes is {nodes}, but only this process was started: start one process "
            "for each device with srun or torchrun"
        )
    # A default with the time in it differs between processes.
    if started > 1 and "${now" in str(OmegaConf.to_container(config)["output"]):  # type: ignore[index,call-overload]
        raise ValueError(f"{starter} started {started} processes: name their folder, output=FOLDER")


@contextlib.contextmanager
def processes(config: DictConfig, devices: int) -> Iterator[None]:
    """Have a process for each device of this machine while the run lasts.

    They run the same resolved config, and end with this one, however it ends.

    Args:
        config: Config of the run.
        devices: Devices of this machine.

    Raises:
        RuntimeError: With the last words of a process that failed.
    """
    if devices == 1 or _LOCAL in os.environ or max(torchrun_processes(), slurm_processes()) > 1:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "config.yaml"
        shared.write_text(OmegaConf.to_yaml(config, resolve=True))
        with _environment(devices):
            others = [_Process(rank, shared) for rank in range(1, devices)]
            done = threading.Event()
            threading.Thread(target=_watch, args=(others, done), daemon=True).start()
            try:
                yield
                done.set()
            except Exception as error:
                done.set()
                _explain(error, others)
                raise
            finally:
                done.set()
                for other in others:
                    other.end()


class _Process:
    """One more process of the run; what it says of an error is kept in a file."""

    def __init__(self, rank: int, config: Path) -> None:
        self.rank = rank
        self._told = config.with_name(f"{rank}.txt")
        environment = os.environ | {
            "LOCAL_RANK": str(rank),
            "PYTHONPATH": os.pathsep.join([str(Path(mlip.__file__).parents[1]), *sys.path[1:]]),
        }
        with self._told.open("w") as told:
            self._process = subprocess.Popen(
                [sys.executable, *_PROGRAM, str(config)],
                env=environment, stdin=subprocess.PIPE, stdout=told, stderr=told,
            )  # fmt: skip

    @property
    def failed(self) -> bool:
        return self._process.poll() not in (None, 0)

    @property
    def last_words(self) -> str:
        lines = [line for line in self._told.read_text().splitlines() if line.strip()]
        return "\n".join(lines[-20:]) or f"exit code {self._process.returncode}"

    def end(self) -> None:
        """Wait for a process that has done its work; end one that cannot."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2.0)
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _environment(devices: int) -> Iterator[None]:
    """Tell Lightning, and the processes to come, where they meet."""
    new = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(find_free_network_port()),
        "WORLD_SIZE": str(devices),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
        _LOCAL: str(devices),
    }
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _explain(error: Exception, others: list[_Process]) -> None:
    """Raise what another process failed of, if this one failed of its absence only."""
    if isinstance(error, _USER_ERRORS):
        return
    time.sleep(1.0)  # its end may come a little later than the closed connection
    for other in others:
        if other.failed:
            kind = ValueError if other.last_words.startswith("error: ") else RuntimeError
            raise kind(f"process {other.rank}: {other.last_words}") from error


def _watch(others: list[_Process], done: threading.Event) -> None:
    """End a run that would wait for ever for a process that is no more."""
    while not done.wait(0.5):
        for other in others:
            if other.failed and not done.wait(_GRACE):
                print(f"process {other.rank} failed: {other.last_words}", file=sys.stderr)  # noqa: T201
                for one in others:
                    one.end()
                os._exit(1)


def _main(config: str) -> None:
    """Take part in the run that another process has started."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from mlip.training.run import run

    try:
        run(OmegaConf.create(OmegaConf.to_container(OmegaConf.load(config))))  # type: ignore[arg-type]
    except _USER_ERRORS as error:
        sys.exit(f"error: {error}")


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever sent: it returns when the other end is closed
    os._exit(1)


if __name__ == "__main__":
    _main(sys.argv[1])

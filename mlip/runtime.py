"""The one place that tames the process: threads, unsafe loading, import order of e3nn and mace."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def available_cores() -> int:
    """Return how many cores this process may use (affinity, not the size of the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of_cores(processes: int) -> int | None:
    """Return the threads of each of several processes, or None for one, which takes all."""
    return max(1, available_cores() // processes) if processes > 1 else None


def set_threads(threads: int | None = None) -> int:
    """Fix the number of threads of torch and BLAS; oversubscription costs up to ten times.

    Args:
        threads: Threads to use; None takes ``OMP_NUM_THREADS`` if set, else every available core.

    Returns:
        The number of threads in force.

    Raises:
        ValueError: If ``threads`` is below one or above the number of cores.
    """
    cores = available_cores()
    if threads is None:
        threads = min(int(os.environ.get("OMP_NUM_THREADS") or cores), cores)
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(
            f"threads is {threads!r}: give a whole number from 1, or null for every core"
        )
    if threads > cores:
        raise ValueError(
            f"threads is {threads}, but this process may use {cores} cores: more threads than "
            "cores are up to ten times slower; give at most that"
        )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)
    return threads


def check_device(device: str) -> None:
    """Refuse a device that this machine, or this PyTorch, does not have.

    Raises:
        ValueError: For a name other than ``cpu``, ``cuda``, ``cuda:N``, or a GPU not there.
    """
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", str(device)):
        raise ValueError(f"device is {device!r}: give cpu, cuda or cuda:N")
    import torch

    found = torch.cuda.device_count()
    if found <= int(str(device).partition(":")[2] or 0):
        raise ValueError(
            f"device is {device!r}, but this PyTorch {torch.__version__} sees {found} GPUs: "
            "give device=cpu, or install a PyTorch build for your GPU"
        )


def best_device() -> str:
    """Return ``cuda`` if there is a GPU, else ``cpu``; MPS has no float64, which graphs need."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def import_e3nn() -> ModuleType:
    """Import e3nn; its 0.4 line unpickles a constants file that torch >= 2.6 refuses by default."""
    import torch

    torch.serialization.add_safe_globals([slice])
    return import_module("e3nn.o3")


def import_mace() -> ModuleType:
    """Import mace without letting it switch off safe loading for the whole process.

    ``import mace`` sets ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD``; the variable is put back afterwards.

    Raises:
        ModuleNotFoundError: If the ``mace`` extra is not installed, with the remedy.
    """
    if find_spec("mace") is None:
        raise ModuleNotFoundError(
            "the mace backbone needs the package mace-torch: pip install 'mlip-suite[mace]'"
        )
    before = os.environ.get(_UNSAFE)
    import_e3nn()
    try:
        with quiet_third_party():
            return import_module("mace.modules")
    finally:
        if before is None:
            os.environ.pop(_UNSAFE, None)
        else:
            os.environ[_UNSAFE] = before


def import_extra(extra: str, package: str, module: str) -> ModuleType:
    """Import a module of a package that one of our extras brings.

    Raises:
        ModuleNotFoundError: If the package is not installed, with the remedy.
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"{extra} needs the package {package}: pip install 'mlip-suite[{extra}]', in another "
            "environment than that of mace, which needs an older e3nn",
            name=package,
        )
    before = os.environ.get(_UNSAFE)
    try:
        with quiet_third_party():
            return import_module(module)
    finally:
        if before is None:
            os.environ.pop(_UNSAFE, None)


@contextmanager
def quiet_third_party() -> Iterator[None]:
    """Hold back the notices that mace and e3nn give on import and construction; errors pass."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.filterwarnings("ignore", message=".*TorchScript type system.*")
        warnings.filterwarnings("ignore", message=".*To copy construct from a tensor.*")
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        yield


@contextmanager
def plain_e3nn() -> Iterator[None]:
    """Let modules of e3nn that are built here run as Python, which can be traced with symbols.

    TorchScript, their default, fixes the sizes that it sees.
    """
    import_e3nn()
    e3nn = import_module("e3nn")
    before = e3nn.get_optimization_defaults()["jit_script_fx"]
    e3nn.set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(jit_script_fx=before)


def keep_compiled() -> None:
    """Keep what the inductor compiles in the user's cache, not in a folder for temporary files."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "mlip" / "inductor"))


@contextmanager
def default_precision(dtype: Any) -> Iterator[None]:
    """Let new tensors of floating point have a ``torch.dtype``, whatever the process says."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def load_tensors(path: Path, **kwargs: Any) -> Any:
    """Read a torch file that holds tensors and plain containers only; never runs pickled code.

    Raises:
        ValueError: If the file is truncated, or holds anything that would have to be executed.
    """
    import torch

    try:
        return torch.load(path, weights_only=True, map_location="cpu", **kwargs)
    except Exception as error:  # torch raises a different class for each kind of damage
        raise ValueError(
            f"{path} cannot be read as plain tensors: it is damaged, or it is a pickled program "
            f"that mlip refuses to run ({type(error).__name__})"
        ) from error

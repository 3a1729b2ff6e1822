"""What the jobs of a sweep need beyond what the user typed: folders, a way to go on, plugins."""

from collections.abc import Sequence
from importlib.util import find_spec

_FLAGS = ("-m", "--multirun")
_PLUGINS = {
    "hydra/launcher": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/sweeper": ("hydra_plugins.hydra_optuna_sweeper", "sweep"),
}
"""Group -> the module that our options of it need, and the extra that brings it."""


def is_sweep(arguments: Sequence[str]) -> bool:
    """Return whether the words of a command line ask for several runs."""
    return any(word in _FLAGS for word in arguments)


def completed(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line with those that every job of a sweep needs.

    Each job gets a folder of its own in that of the sweep, unless ``output`` is given. A queue
    starts a job again with the same words after it took the machine back: with
    ``resume=auto`` it goes on.

    Raises:
        ModuleNotFoundError: If a launcher or sweeper is not installed, with the remedy.
    """
    words = list(arguments)
    for group, (module, extra) in _PLUGINS.items():
        chosen = [word.partition("=")[2] for word in words if word.startswith(f"{group}=")]
        if chosen and chosen[0] != "basic" and not _installed(module):
            raise ModuleNotFoundError(
                f"{group}={chosen[0]} needs a package: pip install 'mlip-suite[{extra}]'"
            )
    if not is_sweep(words):
        return words
    if not any(word.startswith("output=") for word in words):
        words.append("output=${hydra:sweep.dir}/${hydra:job.num}")
    queued = any(word.startswith("hydra/launcher=") for word in words)
    if queued and not any(word.startswith("resume=") for word in words):
        words.append("resume=auto")
    flags = [word for word in words if word in _FLAGS]
    return [*flags, *(word for word in words if word not in _FLAGS)]  # as Hydra's parser wants it


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

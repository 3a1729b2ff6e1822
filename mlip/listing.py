"""What one may type: data sets and the options of every config group."""

from mlip import config, paths
from mlip.errors import suggest


def groups() -> list[str]:
    """Return ``datasets`` and every config group that has options."""
    folders = (path for path in paths.content("configs").iterdir() if path.is_dir())
    return ["datasets", *sorted(path.name for path in folders if config.options(path.name))]


def names(group: str) -> list[str]:
    """Return the names of a group.

    Raises:
        ValueError: If there is no such group, with near matches.
    """
    if group == "datasets":
        return sorted(path.parent.name for path in paths.content("datasets").glob("*/card.yaml"))
    if group not in groups():
        raise ValueError(f"there is no group {group!r}{suggest(group, groups())}")
    return config.options(group)

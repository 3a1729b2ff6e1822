"""Find a class or function by its dotted name, in allow-listed modules only."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mlip.errors import suggest


def locate(target: str, allowed: Sequence[str]) -> Any:
    """Return what ``module.name`` defines.

    The module is imported by its full name and must define the thing itself: a name that it merely
    imported (``os``, ``torch.hub.load``) is not one it offers, however the dotted path is spelt.

    Args:
        target: Dotted name.
        allowed: Prefixes of module names, each ending in a dot.

    Raises:
        ValueError: If the name lies elsewhere or names nothing, with near matches.
        ModuleNotFoundError: If the module needs a package that is not installed.
    """
    if not target.startswith(tuple(allowed)):
        raise ValueError(
            f"_target_ {target!r} is not allowed: only names that begin with "
            f"{' or '.join(allowed)} are built"
        )
    module_name, _, name = target.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a package that the module needs: its own message names it
        raise ValueError(f"_target_ {target!r}: there is no module {error.name!r}") from error
    found = getattr(module, name, None)
    if not callable(found) or not str(getattr(found, "__module__", "")).startswith(tuple(allowed)):
        known = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module_name
        ]
        raise ValueError(
            f"_target_ {target!r}: {module_name} offers no {name!r}{suggest(name, known)}"
        )
    return found

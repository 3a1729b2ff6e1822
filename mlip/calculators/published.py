"""Published potentials through the calculators of their own packages; each package is optional."""

import contextlib
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from typing import Any

from ase.calculators.calculator import Calculator


def sevennet(model: str, device: str = "cpu", modal: str | None = None) -> Calculator:
    """Return a SevenNet by the calculator of the package sevenn.

    Args:
        model: A name that sevenn knows (it downloads what its wheel lacks), or the path of a file
            within the package, such as ``pretrained_potentials/SevenNet_MF_0/….pth``.
        device: ``cpu`` or ``cuda``.
        modal: Which training set of a multi-fidelity model to imitate.

    Raises:
        ModuleNotFoundError: If sevenn is not installed.
        ValueError: If the model has several modals and none of them is named.
    """
    module = _import("sevenn.calculator", "sevenn")
    shipped = files("sevenn").joinpath(model)
    path = str(shipped) if shipped.is_file() else model
    return module.SevenNetCalculator(path, device=device, modal=modal)


def _import(module: str, requirement: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ModuleNotFoundError: If it is not installed, with the command for it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module} cannot be imported ({error}): pip install '{requirement}'", name=error.name
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a package prints at construction off the screen; its errors still rise."""
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        yield

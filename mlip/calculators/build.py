"""Build an ASE calculator from its config, from allow-listed packages only."""

from collections.abc import Mapping
from typing import Any

from ase.calculators.calculator import BaseCalculator

from mlip.locate import locate

ALLOWED = ("mlip.calculators.", "ase.calculators.")
"""A ``_target_`` elsewhere is refused: a config file is data, not a way to run any function."""


def build_calculator(config: Mapping[str, Any]) -> BaseCalculator:
    """Return the calculator that a ``build:`` block describes.

    Args:
        config: ``_target_`` (dotted name of a class or function in an allowed package) and its
            keyword arguments. A nested mapping with a ``_target_`` is built first, under the
            same rule; lists are walked.

    Raises:
        ValueError: If ``_target_`` is absent, not allowed anywhere in the block, or names nothing,
            or if its arguments are wrong.
        ModuleNotFoundError: If the package that the calculator needs is not installed.
    """
    _check(config, "build")
    calculator = _build(config)
    if not isinstance(calculator, BaseCalculator):
        raise ValueError(
            f"_target_ {config['_target_']!r} gives a "
            f"{type(calculator).__name__}, not an ASE calculator: name a calculator "
            "class, or a function that returns one"
        )
    return calculator


def _check(node: Any, where: str, top: bool = True) -> None:
    """Refuse the whole block before anything of it is imported."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is None and top:
            raise ValueError(
                f"{where} has no _target_: give the dotted name of a calculator, "
                "for instance ase.calculators.emt.EMT"
            )
        if target is not None and not str(target).startswith(ALLOWED):
            raise ValueError(
                f"{where}._target_ is {target!r}, which is not allowed: only names "
                f"that begin with {' or '.join(ALLOWED)} are built"
            )
        for key, value in node.items():
            _check(value, f"{where}.{key}", top=False)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _check(value, f"{where}[{index}]", top=False)


def _build(node: Any) -> Any:
    if isinstance(node, Mapping):
        arguments = {str(key): _build(value) for key, value in node.items() if key != "_target_"}
        if "_target_" not in node:
            return arguments
        target = locate(str(node["_target_"]), ALLOWED)
        try:
            return target(**arguments)
        except TypeError as error:
            raise ValueError(
                f"{node['_target_']} refuses the arguments {sorted(arguments)}: {error}"
            ) from error
    if isinstance(node, list | tuple):
        return [_build(value) for value in node]
    return node

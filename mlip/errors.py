"""Sentences for the user: what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UnsupportedElementError(ValueError):
    """A structure holds elements that the potential was not trained on."""


class StructureError(ValueError):
    """A structure of a batch that cannot be computed.

    Args:
        index: Which one, counted from 0.
        problem: What is wrong with it and what to do.
    """

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"structure {index}: {problem}")
        self.index = index
        self.problem = problem


class DivergedError(RuntimeError):
    """A training whose errors are no longer numbers."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for near matches of ``name``, else the known names."""
    known = sorted(set(known) - {name})
    near = get_close_matches(name, known, n=3, cutoff=0.55)
    if near:
        return "; did you mean " + " or ".join(repr(match) for match in near) + "?"
    return f"; known: {', '.join(known)}" if known else ""

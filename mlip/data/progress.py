"""A line in the terminal that tells how far a long reading is."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")
_EVERY = 64


def counted(items: Iterable[Item], what: str, shown: bool = True) -> Iterator[Item]:
    """Yield the items while a line on standard error counts them; nothing if it is no terminal.

    Args:
        items: What is read.
        what: What is done with which file.
        shown: Show the line.
    """
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield from items
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what)
        for number, item in enumerate(items, 1):
            if number % _EVERY == 0:
                bar.update(task, description=f"{what}: {number:,} frames")
            yield item

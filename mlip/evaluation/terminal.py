"""The errors of an evaluation as a table in a terminal."""

from rich.console import Console
from rich.table import Table

from mlip.evaluation.evaluate import Evaluation
from mlip.evaluation.pages import error_rows
from mlip.reporting.html import number


def print_errors(evaluation: Evaluation) -> None:
    """Print MAE, RMSE and largest error of each quantity, and what failed."""
    console = Console(highlight=False)
    table = Table(
        title=f"{evaluation.label}: {len(evaluation.frames)} frames",
        title_justify="left",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for heading in ("quantity", "MAE", "RMSE", "largest", "unit", "labels"):
        table.add_column(heading, justify="left" if heading in ("quantity", "unit") else "right")
    rows = error_rows(evaluation)
    for row in rows:
        errors = (number(row[name]) for name in ("mae", "rmse", "largest"))
        table.add_row(row["quantity"], *errors, row["unit"], str(row["used"]))
    if rows:
        console.print(table)
    else:
        console.print(f"{table.title}, without labels to compare with")
    for index, message in list(evaluation.failures.items())[:3]:
        console.print(f"failed: {evaluation.frames[index].source}: {message}", style="red")
    if evaluation.failures:
        console.print(f"{len(evaluation.failures)} of {len(evaluation.frames)} frames failed")

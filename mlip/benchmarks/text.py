"""Numbers as the leaderboard prints them."""

MINUS = "\u2212"
DASH = "\u2013"


def number(value: float | None, decimals: int = 3, sign: bool = False) -> str:
    """Return a number with fixed decimals and a true minus; an en dash for None."""
    if value is None:
        return DASH
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", MINUS)


def interval(values: tuple[float, float] | None, decimals: int = 3) -> str:
    """Return ``low … high``; an en dash for None."""
    return DASH if values is None else " … ".join(number(value, decimals) for value in values)

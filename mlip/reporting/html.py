"""Offline HTML pages: one jinja2 environment, one look, atomic writes."""

import math
import os
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"

_MINUS = "\u2212"
_DASH = "\u2013"
_THIN_SPACE = "\u202f"


def render(template: str | Path, **context: Any) -> str:
    """Return the page of a template.

    Args:
        template: Name of a file in ``mlip/reporting/templates``, or the ``Path`` of a template that
            lives beside the code that fills it; both may ``{% extends "base.html" %}``.
        **context: What the template names; an absent name is an error, not an empty string.
            Strings are escaped, except ``markupsafe.Markup`` (what ``figures.svg`` returns).
    """
    environment = _environment()
    if isinstance(template, Path):
        return environment.from_string(template.read_text(encoding="utf-8")).render(**context)
    return environment.get_template(template).render(**context)


def write_page(path: str | Path, template: str | Path, **context: Any) -> Path:
    """Render a template into a file; a reader sees the old page or the new one, never half of one.

    Args:
        path: File to write; its folder is made.
        template: See :func:`render`.
        **context: See :func:`render`.

    Returns:
        The path written.
    """
    return write_text(path, render(template, **context))


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` to a temporary file in the same folder, then rename it to ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix keeps the process id: two processes that write one page never share a draft.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path


def number(value: Any, digits: int = 3) -> str:
    """Return a number to ``digits`` significant digits, without exponents for usual sizes.

    ``None`` and NaN become an en dash; integers keep all digits; text passes unchanged.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{int(value):,}".replace(",", _THIN_SPACE)
    if value is not None and not isinstance(value, Real):
        return str(value)
    if value is None or isinstance(value, bool):
        return _DASH if value is None else str(value)
    value = float(value)
    if not math.isfinite(value):
        return _DASH if math.isnan(value) else str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("-", _MINUS)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else digits - 1
    return f"{value:.{decimals}f}".replace("-", _MINUS)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment

"""What a check found, and how findings are told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

_EXAMPLES = 3
_SENTENCES = 5


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Args:
        severity: ``error`` (must not be trained on), ``warning`` (look at it), ``note``.
        message: A sentence that names file and frame, the value, and the remedy.
        units: Options of a label's declaration that would mend it: ``{"energy": {"unit": "Ha"}}``;
            of a stress also ``sign: other`` and ``shear``, what is read as yz, xz, xy.
    """

    severity: Literal["error", "warning", "note"]
    message: str
    units: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def require(findings: Iterable[Finding]) -> None:
    """Raise if there is an error among the findings.

    Raises:
        ValueError: With the sentence of every error.
    """
    errors = [finding.message for finding in findings if finding.severity == "error"]
    if errors:
        raise ValueError("\n".join(errors))


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return errors first, then warnings, then notes."""
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: rank[finding.severity])


def examples(names: Sequence[str]) -> str:
    """Return the first few names, and how many there are beside them."""
    more = len(names) - _EXAMPLES
    return ", ".join(names[:_EXAMPLES]) + (f" and {more} more" if more > 0 else "")


def shortened(findings: Sequence[Finding]) -> list[Finding]:
    """Return the first few findings of one check, the last of them with the number left out."""
    kept = list(findings[:_SENTENCES])
    if len(findings) > _SENTENCES:
        more = len(findings) - _SENTENCES
        last = kept[-1]
        kept[-1] = replace(last, message=f"{last.message} ({more} more like this)")
    return kept

"""A declaration of units to paste, made of the one in force and what the checks found wrong."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlip.data.fields import FieldMap, LabelSource
from mlip.data.findings import Finding

_OTHER = {
    "tension_positive": "compression_positive",
    "compression_positive": "tension_positive",
}
_SHEAR = ("yz", "xz", "xy")
_PLAIN = str.maketrans({"Å": "A", "³": "^3"})


def advice(findings: Iterable[Finding], fields: FieldMap) -> str:
    """Return ``units='{…}'`` with the corrections that findings ask for; empty if there are none.

    Args:
        findings: What the checks found; of two corrections of one option the first counts.
        fields: The field map under which the labels were read.
    """
    changes: dict[str, dict[str, Any]] = {}
    for finding in findings:
        for label, options in finding.units.items():
            if label in fields.labels:
                changes[label] = {**options, **changes.get(label, {})}
    if not changes:
        return ""
    named = [label for label in fields.labels if label not in fields.optional or label in changes]
    entries = ["rest: ase"] if fields.optional else []
    entries += [
        f"{label}: {_entry(label, fields.labels[label], changes.get(label, {}))}" for label in named
    ]
    return f"units={shlex.quote('{' + ', '.join(entries) + '}')}"


def _entry(label: str, source: LabelSource, change: Mapping[str, Any]) -> str:
    options: dict[str, str] = {
        "key": str(change.get("key", source.keys[0])),
        "unit": str(change.get("unit", source.unit)).translate(_PLAIN),
    }
    if label == "stress":
        options["sign"] = _OTHER[source.sign] if change.get("sign") == "other" else source.sign
        if source.order is not None:
            options["order"] = f"[{', '.join(_order(source.order, change.get('shear', _SHEAR)))}]"
        if change.get("virial", source.virial):
            options["virial"] = "true"
    return "{" + ", ".join(f"{name}: {value}" for name, value in options.items()) + "}"


def _order(order: Sequence[str], shear: Sequence[str]) -> list[str]:
    """Return the order in which what was read as yz, xz, xy is what ``shear`` says."""
    truth: dict[str, str] = dict(zip(_SHEAR, shear, strict=True))
    return [truth.get(name, name) for name in order]

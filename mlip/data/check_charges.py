"""Partial charges against the total charge: what a potential with charges cannot do without."""

from collections.abc import Sequence

from mlip.data.digest import Digest
from mlip.data.findings import Finding, examples

CHARGE_SUM = 0.05
"""e; how well partial charges must add up to the total charge."""
WRONG_CHARGE = 0.5
"""e; what no partitioning of the electrons explains."""


def check_charges(frames: Sequence[Digest]) -> list[Finding]:
    """Find partial charges without the total charge that they add up to, or with another one."""
    held = [frame for frame in frames if "charges" in frame.labels]
    known = [frame for frame in held if "total_charge" in frame.labels]
    missing = [
        f"{frame.source} {frame.charges:+.3f} e"
        for frame in held
        if "total_charge" not in frame.labels and abs(frame.charges) > CHARGE_SUM
    ]
    findings = []
    if missing:
        findings.append(
            Finding("error", f"the charges of {len(missing)} frames add up to a net charge "
                    f"({examples(missing)}) but total_charge is missing; give it in every frame of "
                    "a charged data set")
        )  # fmt: skip
    wrong = [frame for frame in known if _gap(frame) > WRONG_CHARGE]
    loose = [frame for frame in known if CHARGE_SUM < _gap(frame) <= WRONG_CHARGE]
    if wrong:
        findings.append(Finding("error", _sentence(wrong)))
    if loose:
        findings.append(Finding("warning", _sentence(loose)))
    return findings


def _gap(frame: Digest) -> float:
    return abs(frame.charges - frame.total_charge)


def _sentence(frames: Sequence[Digest]) -> str:
    told = [f"{f.source} {f.charges:+.3f} e for {f.total_charge:+.3f} e" for f in frames]
    return (
        f"the charges of {len(frames)} frames do not add up to their total_charge "
        f"({examples(told)}); check both"
    )

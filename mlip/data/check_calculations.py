"""Checks of what calculations say of themselves: convergence, and settings that must agree."""

from collections.abc import Sequence

from mlip.data.digest import Digest
from mlip.data.findings import Finding, examples
from mlip.data.frame import Frame

_LEAVE_OUT = "mlip data select INPUT OUTPUT where=converged"


def check_converged(frames: Sequence[Frame | Digest]) -> list[Finding]:
    """Find frames whose electronic steps did not converge: their labels are wrong."""
    bad = [f.source for f in frames if "converged" in f.info and not bool(f.info["converged"])]
    if not bad:
        return []
    return [
        Finding("error", f"the electronic steps of {len(bad)} frames did not converge "
                f"({examples(bad)}): their energies and forces are wrong; leave them out with "
                f"{_LEAVE_OUT}, or repeat these calculations")
    ]  # fmt: skip


def check_settings(frames: Sequence[Frame | Digest]) -> list[Finding]:
    """Find calculations whose energies or charges cannot be compared with each other.

    Different pseudopotentials of one element and charges of different partitions are errors.
    Energies with and without smearing, which sources that are aligned may mix, and different
    plane-wave cutoffs, which may both be converged, are warnings.
    """
    findings = []
    if len(told := _told(frames, "charge_partition")) > 1:
        findings.append(
            Finding("error", f"charge_partition differs between frames: {_list(told)}: charges of "
                    "different partitions cannot be mixed; read all with one charges=")
        )  # fmt: skip
    if len(told := _told(frames, "energy_kind")) > 1:
        findings.append(
            Finding("warning", f"energy_kind differs between frames: {_list(told)}; read all with "
                    "one energy=, or align the sources")
        )  # fmt: skip
    for element, told in sorted(_pseudopotentials(frames).items()):
        if len(told) > 1:
            findings.append(
                Finding("error", f"the pseudopotential of {element} differs between frames: "
                        f"{_list(told)}: their energies have different zeros; keep one")
            )  # fmt: skip
    if len(told := _told(frames, "encut")) > 1:
        findings.append(
            Finding("warning", f"the plane-wave cutoff differs between frames: {_list(told)} eV; "
                    "make sure that energies and stresses are converged at the lowest")
        )  # fmt: skip
    return findings


def _told(frames: Sequence[Frame | Digest], key: str) -> dict[str, str]:
    """Return each value of an info key, with the first frame that has it."""
    first: dict[str, str] = {}
    for frame in frames:
        if key in frame.info:
            first.setdefault(str(frame.info[key]), frame.source)
    return first


def _pseudopotentials(frames: Sequence[Frame | Digest]) -> dict[str, dict[str, str]]:
    first: dict[str, dict[str, str]] = {}
    for text, source in _told(frames, "pseudopotentials").items():
        for part in text.split("; "):
            element, _, title = part.partition(": ")
            first.setdefault(element, {}).setdefault(title, source)
    return first


def _list(told: dict[str, str]) -> str:
    return ", ".join(f"{value} ({source})" for value, source in sorted(told.items()))

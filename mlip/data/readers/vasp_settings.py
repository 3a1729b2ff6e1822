"""What the input of a VASP run says: functional, settings, total charge."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_GGA = {
    "PE": "PBE",
    "PS": "PBEsol",
    "RE": "revPBE",
    "RP": "RPBE",
    "91": "PW91",
    "AM": "AM05",
    "OR": "optPBE-vdW",
    "BO": "optB88-vdW",
    "MK": "optB86b-vdW",
    "ML": "vdW-DF2",
    "CA": "LDA",
}
_META = {"SCAN": "SCAN", "RSCAN": "rSCAN", "R2SCAN": "r2SCAN", "R2SCA": "r2SCAN"}
_DISPERSION = {
    "1": "D2",
    "10": "D2",
    "11": "D3",
    "12": "D3(BJ)",
    "13": "D4",
    "2": "TS",
    "20": "TS",
    "21": "TS-HI",
    "202": "MBD",
    "4": "dDsC",
}
_UNSET = ("", "--", "NONE", "F")


def functional(tags: Mapping[str, str], titles: Sequence[str]) -> str:
    """Return the name of the functional, ``PBE+U`` or ``r2SCAN-D3(BJ)`` for instance.

    Args:
        tags: INCAR tags and what VASP filled in, as text: METAGGA, GGA, LHFCALC, HFSCREEN, AEXX,
            LDAU, IVDW, LUSE_VDW.
        titles: First lines of the POTCARs; they decide where GGA is not set.
    """
    name = _hybrid(tags) or _semilocal(tags, titles)
    if tags.get("LUSE_VDW", "F").strip(".")[:1] == "T" and "vdW" not in name:
        name += "-vdW"
    dispersion = tags.get("IVDW", "0")
    if dispersion != "0":
        name += f"-{_DISPERSION.get(dispersion, f'IVDW{dispersion}')}"
    return name + ("+U" if tags.get("LDAU", "F").strip(".")[:1] == "T" else "")


def pseudopotentials(symbols: Sequence[str], titles: Sequence[str]) -> str:
    """Return the POTCAR of each element, ``Li: PAW_PBE Li_sv 10Sep2004; O: ...``."""
    found = {s.strip(): " ".join(t.split()) for s, t in zip(symbols, titles, strict=False)}
    return "; ".join(f"{symbol}: {found[symbol]}" for symbol in sorted(found))


def settings(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return settings that energies depend on: cutoff in eV if it is told, and spin."""
    cutoff = tags.get("ENCUT") or tags.get("ENMAX")
    found = {"encut": float(cutoff)} if cutoff and re.fullmatch(r"[\d.]+", cutoff) else {}
    spins = tags.get("ISPIN") == "2" or tags.get("LNONCOLLINEAR", "F").strip(".")[:1] == "T"
    return found | {"spin_polarised": spins}


def total_charge(
    electrons: float | None, valences: Sequence[float], counts: Sequence[int]
) -> float | None:
    """Return the net charge in e: valence electrons of the neutral atoms minus NELECT."""
    if electrons is None or len(valences) != len(counts) or not counts:
        return None
    neutral = sum(z * n for z, n in zip(valences, counts, strict=True))
    return round(neutral - electrons, 6) + 0.0


def _hybrid(tags: Mapping[str, str]) -> str | None:
    if tags.get("LHFCALC", "F").strip(".")[:1] != "T":
        return None
    screening, exact = float(tags.get("HFSCREEN", 0)), float(tags.get("AEXX", 0.25))
    known = {(0.2, 0.25): "HSE06", (0.3, 0.25): "HSE03", (0.0, 0.25): "PBE0", (0.0, 1.0): "HF"}
    named = known.get((round(screening, 1), round(exact, 3)))
    return named or f"hybrid(AEXX={exact:g},HFSCREEN={screening:g})"


def _semilocal(tags: Mapping[str, str], titles: Sequence[str]) -> str:
    meta, gradient = tags.get("METAGGA", "").upper(), tags.get("GGA", "").upper()
    if meta not in _UNSET:
        return _META.get(meta, meta)
    if gradient not in _UNSET:
        return _GGA.get(gradient, f"GGA={gradient}")
    families = {title.split()[0] for title in titles if title.split()}
    words = {"PAW_PBE": "PBE", "PAW_GGA": "PW91", "PAW": "LDA", "PAW_LDA": "LDA"}
    return "/".join(sorted(words.get(family, family) for family in families)) or "unknown"

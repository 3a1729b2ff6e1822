"""Sources on one energy scale: exact shifts are found, mixtures that no shift mends are refused."""

import numpy as np
import pytest
from ase import Atoms

from mlip.data.alignment import align, require_one_kind
from mlip.data.card import load_frames
from mlip.data.frame import Frame

ENERGIES = {"Li": -2.0, "P": -5.0, "S": -4.0, "O": -5.5}
SHIFTS = {"Li": 0.3, "S": -1.2}


def frames(number, elements, shifts, seed, noise=0.0, **info):
    generator = np.random.default_rng(seed)
    made = []
    for index in range(number):
        symbols = list(generator.choice(elements, generator.integers(2, 9)))
        energy = sum(ENERGIES[s] + shifts.get(s, 0.0) for s in symbols)
        energy += noise * len(symbols) * generator.normal()
        atoms = Atoms(symbols, positions=generator.uniform(0, 9, (len(symbols), 3)))
        made.append(Frame(atoms, {"energy": np.array(energy)}, f"made#{index}", info))
    return made


def test_exact_shifts_are_found_and_taken_out():
    sources = {"mp": frames(80, ["Li", "P", "S"], {}, 0), "own": frames(30, ["Li", "S"], SHIFTS, 1)}
    alignment = align(sources)
    assert alignment.reference == "mp"
    assert alignment.shifts["own"] == pytest.approx(SHIFTS)
    assert alignment.residuals["own"][0] > 0.1
    assert alignment.residuals["own"][1] == pytest.approx(0, abs=1e-10)
    assert not alignment.note
    assert "minus Li +0.300, S -1.200 eV/atom" in alignment.to_text()
    assert alignment.to_card()["shifts"]["own"]["Li"] == pytest.approx(0.3)


def test_noise_and_the_choice_of_the_reference():
    sources = {
        "mp": frames(400, ["Li", "P", "S"], {}, 0, 0.02),
        "own": frames(400, ["Li", "S"], SHIFTS, 1, 0.02),
    }
    one, two = align(sources), align(sources, "own")
    assert one.shifts["own"] == pytest.approx(SHIFTS, abs=0.02)
    for symbol in SHIFTS:
        assert two.shifts["mp"][symbol] == pytest.approx(-one.shifts["own"][symbol], abs=1e-8)
    assert "P" not in two.shifts["mp"]


def test_an_element_of_one_source_only_is_not_shifted():
    alignment = align({
        "mp": frames(80, ["Li", "S"], {}, 0),
        "own": frames(80, ["Li", "S", "O"], SHIFTS, 1),
    })  # fmt: skip
    assert set(alignment.shifts["own"]) == {"Li", "S"}


def test_an_undetermined_fit_says_so():
    metals = {name: load_frames(name, "test") for name in ("mlearn_li", "mlearn_cu")}
    assert align(metals).shifts == {"mlearn_cu": {}} or align(metals).shifts == {"mlearn_li": {}}
    fixed = [Frame(Atoms("Li2S"), {"energy": np.array(-8.0)}, "fixed#0")]
    alignment = align({"a": fixed, "b": fixed})
    assert "determine only 2 of 4" in alignment.note


@pytest.mark.parametrize("kinds", [("none", "MP2020"), ("MP2020", "OMat24"), (None, "OMat24")])
def test_corrections_are_never_mixed(kinds):
    sources = {
        str(kind): frames(3, ["Li", "O"], {}, 0, **({"corrections": kind} if kind else {}))
        for kind in kinds
    }
    with pytest.raises(ValueError, match="different corrections cannot be trained together"):
        align(sources)
    require_one_kind({"one": sources[str(kinds[1])]})


def test_bad_input_is_refused():
    made = frames(3, ["Li", "O"], {}, 0)
    with pytest.raises(ValueError, match="no source; did you mean 'mptrj'"):
        align({"mptrj": made}, "mptrk")
    with pytest.raises(ValueError, match="'own' has no frame with an energy"):
        align({"mp": made, "own": [Frame(Atoms("Li"), {}, "x#0")]})
    with pytest.raises(ValueError, match="corrections is 'MP2022'"):
        align({"mp": frames(2, ["Li"], {}, 0, corrections="MP2022")})


def test_sources_without_a_common_element_are_told():
    copper, lithium = (load_frames(name, "test") for name in ("mlearn_cu", "mlearn_li"))
    found = align({"cu": copper, "li": lithium}, "cu")
    assert found.shifts == {"li": {}}
    assert "No other source has an element of li: nothing compares" in found.to_text()

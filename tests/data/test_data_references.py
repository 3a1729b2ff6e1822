"""Energy references: exact recovery, rank deficiency, and given values."""

import numpy as np
import pytest
from ase import Atoms

from mlip.data.energy_references import (
    fit_energy_references,
    given_energy_references,
)
from mlip.data.frame import Frame

TRUE = {"H": -3.25, "O": -430.5, "Li": -1.75}


def frame(formula, noise=0.0, energy=None):
    atoms = Atoms(formula)
    total = sum(TRUE[symbol] for symbol in atoms.symbols) + noise * len(atoms)
    return Frame(atoms, {"energy": np.array(total if energy is None else energy)}, formula)


def test_independent_compositions_give_back_the_references():
    frames = [frame(formula) for formula in ("H2O", "Li2O", "LiH", "LiOH", "H2", "Li40O20")]
    fit = fit_energy_references(frames)
    assert (fit.rank, fit.n_elements, fit.note) == (3, 3, "")
    assert fit.values == pytest.approx(TRUE, rel=1e-12)
    assert fit.rms_residual < 1e-11
    assert fit.total(np.array([1, 1, 8])) == pytest.approx(-437.0, rel=1e-12)


def test_every_frame_weighs_the_same_whatever_its_size():
    # Energies per atom -1 (1 atom) and -3 (100 atoms): the mean of the frames is -2.
    frames = [frame("Li", energy=-1.0), frame("Li100", energy=-300.0)]
    fit = fit_energy_references(frames)
    assert fit.values == {"Li": pytest.approx(-2.0)}
    assert fit.rms_residual == pytest.approx(1.0)


def test_one_stoichiometry_is_rank_deficient_and_says_so():
    frames = [frame("Li2O", noise) for noise in (-0.01, 0.0, 0.01)] + [frame("Li4O2")]
    fit = fit_energy_references(frames)
    assert (fit.rank, fit.n_elements) == (1, 2)
    assert "determine only 1 of 2 energy references (Li, O)" in fit.note
    assert "solution of least norm" in fit.note
    # The composition itself is right, and of all solutions this one is the shortest.
    total = 2 * TRUE["Li"] + TRUE["O"]
    assert fit.total(np.array([3, 3, 8])) == pytest.approx(total, rel=1e-12)
    assert fit.values["Li"] == pytest.approx(2 * fit.values["O"])


def test_frames_without_a_finite_energy_are_left_out():
    frames = [frame("Li"), frame("Li", energy=np.nan), Frame(Atoms("O"), {}, "x")]
    fit = fit_energy_references(frames)
    assert fit.values == {"Li": -1.75}
    with pytest.raises(ValueError, match=r"energy_references has no value for O; known: Li"):
        fit.total(np.array([3, 8]))
    with pytest.raises(ValueError, match=r"no frame has a finite energy; give them"):
        fit_energy_references(frames[1:])


def test_given_references():
    given = given_energy_references({"Li": -0.3, "O": -1, "H": 0.0}, ["Li", "O"])
    assert given.values == {"Li": -0.3, "O": -1.0, "H": 0.0}
    assert np.isnan(given.rms_residual)
    for values, message in (
        ({"Li": -0.3}, "no value for O, P; known: Li"),
        ({"Lo": -0.3}, "names 'Lo', which is not an element"),
        ({"X": -0.3}, "names 'X', which is not an element"),
        ({"Li": float("nan")}, "energy_references.Li is nan; give a finite number in eV"),
        ({"Li": "a"}, "energy_references.Li is 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            given_energy_references(values, ["Li", "O", "P"])

"""Real outputs of Quantum ESPRESSO and CP2K: values against the text; what is not converged."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from ase.test.fio.test_espresso import pw_output_cell, pw_output_text
from ase.units import Bohr, GPa, Hartree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlip.data.readers import read
from mlip.data.readers.recognize import format_of
from mlip.units import to_internal

FILES = Path(__file__).parent / "files"
RY = 13.605693
SPECIES = """
     atomic species   valence    mass     pseudopotential
     Fe            16.00    55.84500     Fe( 1.00)
     H              1.00     1.00800     H ( 1.00)

   Cartesian axes
"""


def pw_output(folder, text=pw_output_text, name="scf.out"):
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_text(text + "\n     JOB DONE.\n")
    return path


def cp2k_output(folder, name):
    path = folder / name
    path.write_bytes(gzip.decompress((FILES / f"{name}.gz").read_bytes()))
    return path


def test_espresso_equals_its_text(tmp_path):
    path = pw_output(tmp_path)
    assert format_of(path) == "espresso-out"
    first, second = read(path)
    assert first.labels["energy"] == pytest.approx(-509.83425823 * RY, rel=1e-7)
    assert second.labels["energy"] == pytest.approx(-509.83806077 * RY, rel=1e-7)
    # A column behind the moments holds the constraints.
    np.testing.assert_array_equal(second.labels["magmoms"], [2.0016, 1.5951, -0.0008])
    stress = first.labels["stress"]
    ry_bohr3 = to_internal("energy", "Ry") / Bohr**3
    np.testing.assert_allclose(
        np.diag(stress), np.array([-0.00125485, -0.00115848, -0.00542982]) * ry_bohr3, rtol=1e-6
    )
    assert first.info["functional"] == "PBE"
    assert first.info["encut"] == pytest.approx(144 * RY, rel=1e-6)
    assert first.info["energy_kind"] == "free"
    assert [frame.info["converged"] for frame in (first, second)] == [True, True]
    assert len(list(read(pw_output(tmp_path, pw_output_cell)))) == 3


def test_espresso_masks_what_if_pos_holds(tmp_path):
    for frame in read(pw_output(tmp_path)):
        np.testing.assert_array_equal(
            np.isnan(frame.labels["forces"]), [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
        )
    # Without the flags in the output they are known from the input beside it.
    free = pw_output_text.replace("    0   0   0\n", "\n")
    assert not any("constrained" in f.info for f in read(pw_output(tmp_path / "b", free)))
    (tmp_path / "b" / "scf.in").write_text(
        "&system\n ibrav=0, nat=3, ntyp=2\n/\n"
        "ATOMIC_SPECIES\n Fe 55.845 Fe.upf\n H 1.008 H.upf\n"
        "CELL_PARAMETERS angstrom\n 2.8 0 0\n 0 2.9 0\n 0 0 2.8\n"
        "ATOMIC_POSITIONS angstrom\n Fe 0 0 0\n Fe 1.4 1.4 1.4 1 0 1\n H 1.4 1.4 0 1 1 1\n"
    )
    scf = free.partition("BFGS Geometry")[0]
    (frame,) = read(pw_output(tmp_path / "b", scf))
    np.testing.assert_array_equal(frame.info["constrained"], [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_espresso_that_did_not_converge(tmp_path):
    """pw.x prints such an energy without its mark."""
    head, mark, tail = pw_output_text.rpartition("!    total energy")
    said = "convergence NOT achieved after 100 iterations: stopping"
    tail = tail.replace("convergence has been achieved in  23 iterations", said)
    path = pw_output(tmp_path, f"{head}{mark.replace('!', ' ')}{tail}")
    first, second = read(path)
    assert (first.info["converged"], second.info["converged"]) == (True, False)
    assert second.labels["energy"] == pytest.approx(-509.83806077 * RY, rel=1e-7)
    with pytest.raises(ValueError, match=r"scf.out#1: the electronic steps did not converge"):
        list(read(path, unconverged="refuse"))


def test_total_charge_of_espresso(tmp_path):
    path = pw_output(tmp_path, pw_output_text.replace("\n   Cartesian axes\n", SPECIES))
    assert [frame.labels["total_charge"] for frame in read(path)] == [0.0, 0.0]
    text = path.read_text().replace("electrons       =        33.00", "electrons       =   32.00")
    path.write_text(text)
    assert next(read(path)).labels["total_charge"] == 1.0


def test_espresso_that_did_not_finish(tmp_path):
    path = pw_output(tmp_path)
    path.write_text(path.read_text().replace("JOB DONE.", ""))
    with pytest.raises(ValueError, match=r"does not end with 'JOB DONE.'.* step is #0.*keep"):
        list(read(path))
    assert len(list(read(path, unfinished="keep"))) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("code", ["espresso", "cp2k"])
def test_damaged_outputs_are_errors_that_name_them_or_read_as_numbers(tmp_path, code, data):
    path = pw_output(tmp_path)
    if code == "cp2k":
        path = cp2k_output(tmp_path, "BANDS_output_v8.1.out")
    content = bytearray(path.read_bytes())
    end = content.index(b"JOB DONE." if code == "espresso" else b"PROGRAM ENDED")
    cut = data.draw(st.integers(1, end))
    if truncated := data.draw(st.booleans()):
        content = content[:cut]
    else:
        content[cut - 1] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        found = [float(frame.labels["energy"]) for frame in read(path)]
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert not truncated
        assert np.isfinite(found).all()


def test_cp2k_equals_its_text(tmp_path):
    path = cp2k_output(tmp_path, "BANDS_output_v8.1.out")
    assert format_of(path) == "cp2k-out"
    (frame,) = read(path)
    text = path.read_text()
    energy = re.search(r"energy \[a.u.\]:\s+(\S+)", text)[1]
    assert frame.labels["energy"] == pytest.approx(float(energy) * Hartree, rel=1e-14)
    lengths = [float(x) for x in re.findall(r"CELL\| Vector .*= +(\S+)", text)[:3]]
    np.testing.assert_allclose(frame.atoms.cell.lengths(), lengths, rtol=1e-7)
    assert frame.atoms.get_chemical_formula() == "Si2"
    assert frame.labels["forces"].shape == (2, 3)
    assert frame.info["functional"] == "PBE"
    assert frame.info["converged"] is True
    path.write_text(text.replace("energy [a.u.]:", "energy [hartree]"))  # since 2025
    assert next(read(path)).labels["energy"] == frame.labels["energy"]


def test_charges_and_moments_of_cp2k(tmp_path):
    path = cp2k_output(tmp_path, "cdft_dos_cp2k_6.0.out")
    (frame,) = read(path)
    assert frame.labels["total_charge"] == 1.0
    np.testing.assert_array_equal(
        frame.labels["charges"][:5], [0.459, -0.106, -0.534, -0.514, -1.669]
    )
    np.testing.assert_array_equal(
        frame.labels["magmoms"][:5], [0.0, -0.004, -0.001, -0.004, -0.864]
    )
    assert frame.info["charge_partition"] == "hirshfeld"
    told = float(re.search(r"Total Charge +(-?\d+\.\d+)", path.read_text())[1])
    assert frame.labels["charges"].sum() == pytest.approx(told, abs=194 * 5e-4)
    (frame,) = read(path, charges="none")
    assert "charges" not in frame.labels


def forces_and_stress(text, new):
    """Print forces and stress behind the energy, in the layouts of the versions of CP2K."""
    rows = [(0.1 * k, -0.2, 0.3) for k in range(6)]
    if new:
        forces = " FORCES| Atomic forces [hartree/bohr]\n FORCES|   Atom     x  y  z  |f|\n"
        forces += "".join(
            f" FORCES|  {k + 1} {x:.8E} {y:.8E} {z:.8E} 1.0E-01\n"
            for k, (x, y, z) in enumerate(rows)
        )
        stress = (
            " STRESS| Analytical stress tensor [GPa]\n STRESS|    x   y   z\n"
            " STRESS|      x   1.0E+00   4.0E+00   5.0E+00\n"
            " STRESS|      y   4.0E+00   2.0E+00   6.0E+00\n"
            " STRESS|      z   5.0E+00   6.0E+00   3.0E+00\n"
        )
    else:
        forces = "\n ATOMIC FORCES in [a.u.]\n\n # Atom   Kind   Element   X   Y   Z\n"
        forces += "".join(
            f"      {k + 1}      1      C     {x:.8f} {y:.8f} {z:.8f}\n"
            for k, (x, y, z) in enumerate(rows)
        )
        stress = (
            "\n STRESS TENSOR [GPa]\n\n       X      Y      Z\n  X   1.0  4.0  5.0\n"
            "  Y   4.0  2.0  6.0\n  Z   5.0  6.0  3.0\n"
        )
    return re.sub(r"(ENERGY\| Total.*\n)", lambda m: m[1] + "\n" + forces + stress, text), rows


def trajectory(path, natoms=6, energies=None):
    """Write the positions of each step, as CP2K does, with the energies of the output."""
    told = re.findall(r"energy \[a.u.\]:\s+(\S+)", path.read_text())[:4]
    rows = re.findall(r"^ +\d+ +\d+ ([CH]) +\d+ +(\S+) +(\S+) +(\S+) ", path.read_text(), re.M)
    frames = [
        f"{natoms}\n i = {k:8}, E = {float(energy):19.10f}\n"
        + "".join(f"  {s} {float(x) + 0.01 * k:.10f} {y} {z}\n" for s, x, y, z in rows[:natoms])
        for k, energy in enumerate(energies or told)
    ]
    (path.parent / "aiida-pos-1.xyz").write_text("".join(frames))


@pytest.mark.parametrize("new", [False, True])
def test_an_optimisation_of_cp2k(tmp_path, new):
    path = cp2k_output(tmp_path, "GEO_OPT_v2024.3.out")
    with pytest.raises(ValueError, match=r"tells 5 energies but the positions of the first only"):
        list(read(path))
    text, forces = forces_and_stress(path.read_text(), new)
    fourth = text.rindex("*** SCF run converged", 0, text.rindex("*** SCF run converged"))
    changed = text[fourth:].replace("SCF run converged in     9 steps", "SCF run NOT converged", 1)
    path.write_text(text[:fourth] + changed)
    trajectory(path)
    frames = list(read(path))
    assert [frame.info["converged"] for frame in frames] == [True, True, True, False]
    assert frames[3].labels["energy"] == pytest.approx(-13.726193434870929 * Hartree, rel=1e-13)
    shifts = [frame.atoms.positions[0, 0] - frames[0].atoms.positions[0, 0] for frame in frames]
    np.testing.assert_allclose(shifts, [0, 0.01, 0.02, 0.03], atol=1e-9)
    np.testing.assert_allclose(frames[2].labels["forces"], np.array(forces) * Hartree / Bohr)
    expected = -GPa * np.array([[1, 4, 5], [4, 2, 6], [5, 6, 3]])
    np.testing.assert_allclose(frames[1].labels["stress"], expected)
    assert frames[0].info["functional"] == "PBE-D3"
    assert frames[0].labels["charges"][0] == -0.896
    (tmp_path / "run.inp").write_text(
        "&CONSTRAINT\n &FIXED_ATOMS\n  COMPONENTS_TO_FIX XY\n  LIST 1..2 5\n &END\n&END\n"
    )
    fixed = np.zeros((6, 3), bool)
    fixed[np.ix_([0, 1, 4], [0, 1])] = True
    for frame in read(path):
        np.testing.assert_array_equal(np.isnan(frame.labels["forces"]), fixed)
    path.write_text(path.read_text().replace("        GEO_OPT\n", "       CELL_OPT\n", 1))
    with pytest.raises(ValueError, match=r"the cell changes during the run, and aiida-1.cell"):
        list(read(path))
    rows = [[k, 0.0, 12.5 + k, 0, 0, 0, 12, 0, 0, 0, 10, 1475.0] for k in range(4)]
    np.savetxt(tmp_path / "aiida-1.cell", rows, header="Step Time Ax Ay Az Bx ... Volume")
    assert [frame.atoms.cell[0, 0] for frame in read(path)] == [12.5, 13.5, 14.5, 15.5]
    trajectory(path, energies=[-13.0])
    with pytest.raises(
        ValueError, match=r"aiida-pos-1.xyz has a structure of energy -13.0 hartree"
    ):
        list(read(path))


def test_cp2k_that_did_not_finish(tmp_path):
    path = cp2k_output(tmp_path, "GEO_OPT_v2024.3.out")
    path.write_text(path.read_text().partition("Reevaluating energy")[0])
    trajectory(path)
    with pytest.raises(ValueError, match=r"does not end with 'PROGRAM ENDED AT'.* step is #2"):
        list(read(path))

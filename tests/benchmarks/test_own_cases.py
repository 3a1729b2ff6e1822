"""Cases, tasks and models that are added by files only."""

import csv
import shutil

import ase.io
import pytest
import yaml
from ase.build import bulk, fcc111
from ase.calculators.lj import LennardJones

from mlip import paths
from mlip.benchmarks import cli_run, run_benchmark
from mlip.benchmarks.results import read_records
from mlip.benchmarks.runner import plan
from mlip.config import compose
from mlip.properties.surface import surface_energy

CONSTANT = 5.26  # Å
ARGON = {"sigma": 3.4, "epsilon": 0.0104, "rc": 8.5, "smooth": True}


def write_cases(folder, scale=1.0):
    """Two slabs of argon with reference values of a Lennard-Jones potential, times a factor."""
    folder.mkdir(parents=True, exist_ok=True)
    crystal = bulk("Ar", "fcc", a=CONSTANT, cubic=True)
    crystal.info["material"] = "Ar"
    ase.io.write(folder / "bulk.extxyz", crystal)
    slabs, rows = [], []
    for layers in (3, 4):
        slab = fcc111("Ar", (1, 1, layers), a=CONSTANT, vacuum=10.0, periodic=True)
        slab.info |= {"case": f"Ar/111@{layers}", "normal_axis": "c"}
        slabs.append(slab)
        value = surface_energy(slab, crystal, LennardJones(**ARGON)).value
        rows.append({"material": "Ar", "label": f"111@{layers}", "reference_J_m2": scale * value})
    ase.io.write(folder / "structures.extxyz", slabs)
    with (folder / "reference.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lennard_jones(tmp_path, *more):
    arguments = [f"calculator.build.{key}={value}" for key, value in ARGON.items()]
    common = ["calculator=lennard_jones", *arguments, f"output={tmp_path}/out", "progress=false"]
    return [*common, *more]


def test_cases_of_ones_own_give_the_same_records(tmp_path):
    write_cases(tmp_path / "mine", scale=2.0)
    more = (f"cases={tmp_path}/mine", "tier=full")
    records = read_records(run_benchmark(compose("benchmark", lennard_jones(tmp_path, *more))))
    assert [r.case for r in records] == ["Ar/111@3", "Ar/111@4"]
    assert {r.status for r in records} == {"ok"}
    assert all(r.value == pytest.approx(r.reference / 2, abs=1e-5) for r in records)
    assert records[0].uncertainty == 0.05  # of the card, where the table gives none


@pytest.mark.parametrize(
    ("name", "old", "new", "text"),
    [
        ("reference.csv", "111@4", "110@4", "do not match, first at"),
        ("reference.csv", "reference_J_m2", "reference", "lacks reference_J_m2"),
        ("structures.extxyz", "case=", "name=", "a frame has no case="),
        ("bulk.extxyz", "material=Ar", "material=Kr", "every case needs one frame"),
        ("reference.csv", "0.", "O.", "reference_J_m2 is 'O."),
    ],
)
def test_faults_in_cases_are_named_before_work(tmp_path, name, old, new, text):
    write_cases(tmp_path / "mine")
    path = tmp_path / "mine" / name
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=text):
        plan(compose("benchmark", lennard_jones(tmp_path, f"cases={tmp_path}/mine")))


def test_a_missing_folder_is_named_and_own_cases_are_not_published(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"reference\.csv does not exist: cases are"):
        plan(compose("benchmark", lennard_jones(tmp_path, f"cases={tmp_path}/nowhere")))
    write_cases(tmp_path / "mine")
    with pytest.raises(ValueError, match="record=true with cases of your own"):
        plan(compose("benchmark", lennard_jones(tmp_path, f"cases={tmp_path}/mine", "record=true")))


def test_a_new_task_and_a_new_model_are_files_only(tmp_path, monkeypatch):
    """Four files of a task and one of a model; no line of code is changed."""
    root = tmp_path / "checkout"
    source = paths.content("configs").parent
    shutil.copytree(source / "configs", root / "configs")
    shutil.copy(source / "pyproject.toml", root / "pyproject.toml")
    folder = root / "benchmarks" / "argon_surfaces"
    write_cases(folder)
    shutil.copy(source / "benchmarks" / "card.schema.json", folder.parent)
    card = yaml.safe_load((source / "benchmarks/surface_energy/card.yaml").read_text("utf-8"))
    card |= {"name": "argon_surfaces", "title": "Surfaces of argon"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card, allow_unicode=True), encoding="utf-8")
    (root / "configs/task/argon_surfaces.yaml").write_text(
        "name: argon_surfaces\nproperty: mlip.properties.surface.surface_energy\nprotocol: {}\n"
    )
    model = yaml.safe_load((source / "configs/calculator/lennard_jones.yaml").read_text("utf-8"))
    model |= {"name": "argon", "build": {**model["build"], **ARGON}}
    model["card"] |= {"label": "Argon", "functional": "PBE", "control": False}
    (root / "configs/calculator/argon.yaml").write_text(yaml.safe_dump(model), encoding="utf-8")
    monkeypatch.setattr(paths, "_PACKAGE", root / "mlip")
    page, table = cli_run(
        ["task=argon_surfaces", "calculator=argon", f"output={tmp_path}/out", "progress=false"]
    )
    assert "Surfaces of argon" in page.read_text(encoding="utf-8")
    assert "| 1 | Argon | PBE | 2/2 | 0.000 |" in table.read_text(encoding="utf-8")

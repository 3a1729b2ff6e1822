"""Environments: which one a calculator gets, what a broken one costs, and how one is built."""

import json
import sys
import zipfile
from importlib.metadata import version

import pytest

from mlip.benchmarks import environments, run_benchmark
from mlip.benchmarks.environments import Environment, choose, environment, is_built
from mlip.benchmarks.results import read_records
from mlip.benchmarks.runner import plan, prepare
from mlip.benchmarks.sweep import cli_run
from mlip.config import compose

ABSENT = "no-such-package-of-mlip==99"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Environments of a test go to its folder, and no index is asked."""
    monkeypatch.setenv("MLIP_ENVIRONMENTS", str(tmp_path / "environments"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")


def overrides(tmp_path, *more):
    return ["calculator=zero", f"output={tmp_path}/out", "progress=false", "limit=2", *more]


def wheel(folder, name, code):
    """Write a wheel with one module, by hand."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", code)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


def test_the_current_environment_serves_where_it_meets_the_requirements():
    here = f"ase=={version('ase')}"
    assert not choose({"requirements": [here, "mlip-suite"]}, "auto")
    assert choose({"requirements": ["ase<1"]}, "auto")
    assert choose({"requirements": [ABSENT]}, "auto")
    assert not choose({"requirements": [ABSENT]}, "current")
    assert choose({"requirements": [here]}, "isolated")
    assert not choose({"requirements": [f"{ABSENT}; python_version < '3'"]}, "auto")
    with pytest.raises(ValueError, match="did you mean 'isolated'"):
        choose({}, "isolate")


def test_an_environment_that_does_not_build_gives_rows_with_the_reason(tmp_path):
    path = run_benchmark(
        compose("benchmark", overrides(tmp_path, f"calculator.card.requirements=['{ABSENT}']"))
    )
    records = read_records(path)
    assert [r.status for r in records] == ["error", "error"]
    assert records[0].detail.startswith("no environment: the installation failed")
    assert "no-such-package-of-mlip" in records[0].detail
    assert not is_built([ABSENT])
    logs = list((tmp_path / "environments").glob("*.log"))
    assert "no-such-package-of-mlip" in logs[0].read_text()


def test_it_costs_its_own_rows_only(tmp_path, monkeypatch):
    """In one command, the other calculator is scored as ever."""
    monkeypatch.setattr(
        environments, "_met", lambda requirement: not requirement.startswith("chgnet")
    )
    monkeypatch.setattr(environments, "_build", lambda *_: "the installation failed: made to")
    cli_run(["calculator=chgnet_0_3_0,zero", f"output={tmp_path}/out", "limit=2", "progress=false"])
    found = {}
    for name in ("chgnet_0_3_0", "zero"):
        found[name] = read_records(tmp_path / "out" / "surface_energy" / name / "result.json")
    assert [r.status for r in found["chgnet_0_3_0"]] == ["error"] * 2
    assert [r.status for r in found["zero"]] == ["ok"] * 2


def test_without_leave_to_build_a_missing_package_is_an_error(tmp_path):
    more = (f"calculator.card.requirements=['{ABSENT}']", "environment=current")
    with pytest.raises(ModuleNotFoundError, match="no-such-package-of-mlip"):
        plan(compose("benchmark", overrides(tmp_path, *more)))


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Build environments from one wheel written here, with the ASE of this environment."""
    wheel(tmp_path / "wheels", "tinypotential", "STRENGTH = 2\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setattr(environments, "_SCORING", ())
    return tmp_path


def test_it_is_built_once_and_sees_mlip_but_nothing_installed_beside_it(bare, monkeypatch):
    assert not is_built(["tinypotential"])
    built = environment(["tinypotential"])
    assert built.problem == ""
    assert built.version("tinypotential") == "1.0"
    assert built.version("ase") is None
    assert built.package_folder("tinypotential").is_dir()
    assert built.package_folder("chgnet") is None
    assert "PYTHONPATH" not in built.variables()
    assert built.shared_versions()["mlip-suite"] == "0.1.0"
    monkeypatch.setattr(environments, "_build", None)
    assert environment(["tinypotential"]) == built  # from the cache: nothing is installed again


def test_what_a_kill_left_half_built_is_built_anew(bare):
    folder = environments._folder(["tinypotential"])
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("torn")
    assert not is_built(["tinypotential"])
    assert environment(["tinypotential"]).problem == ""


def test_other_requirements_are_another_environment():
    first, second = (environments._folder([f"ase=={n}"]) for n in ("1", "2"))
    assert first != second
    assert (
        environments._folder(["a", "b"]).name.split("-")[-1]
        == (environments._folder(["b", "a"]).name.split("-")[-1])
    )


def test_the_identity_holds_the_versions_of_its_own_environment(tmp_path, monkeypatch):
    own = Environment(sys.executable, True, {"chgnet": "9.9", "python": "3.99"}, str(tmp_path))
    monkeypatch.setattr("mlip.benchmarks.runner.environment", lambda *_: own)
    (tmp_path / "chgnet").mkdir()
    (tmp_path / "chgnet" / "weights").write_text("w")
    more = (
        "calculator.card.requirements=['chgnet>=9']",
        "+calculator.card.weights={package: chgnet, file: weights}",
    )
    checked = plan(compose("benchmark", overrides(tmp_path, *more)))
    assert checked.environment is None  # nothing is built while names are checked
    ready = prepare(checked)
    assert ready.identity["versions"] == {"chgnet": "9.9"}
    assert len(ready.identity["checkpoint_hash"]) == 64
    assert json.dumps(ready.identity)


@pytest.mark.slow
def test_two_potentials_that_exclude_one_another_run_in_one_command(tmp_path, monkeypatch):
    """Builds the environment of SevenNet from the package index, which takes minutes."""
    pytest.importorskip("chgnet")
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.delenv(name)
    names = ("chgnet_0_3_0", "sevennet_mf_0")
    more = (f"output={tmp_path}/out", "limit=2", "progress=false", "environment=isolated")
    cli_run([f"calculator={','.join(names)}", *more])
    values = {}
    for name in names:
        records = read_records(tmp_path / "out" / "surface_energy" / name / "result.json")
        assert [r.status for r in records] == ["ok", "ok"], records[0].detail
        values[name] = [r.value for r in records]
        assert ("sevenn" in records[0].versions) == (name == "sevennet_mf_0")
    assert values["chgnet_0_3_0"] == pytest.approx([0.343, 0.320], abs=2e-3)  # J/m²
    assert values["sevennet_mf_0"] == pytest.approx([0.337, 0.291], abs=2e-3)

"""The runner against real worker processes that fail in every way."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mlip.benchmarks import run_benchmark
from mlip.benchmarks.record import open_journal
from mlip.benchmarks.results import read_records
from mlip.benchmarks.runner import plan
from mlip.config import compose

FAULTY = ["calculator=zero", "calculator.build._target_=mlip.calculators.controls.Faulty"]


def overrides(tmp_path, *more):
    return [f"output={tmp_path}", "progress=false", "start_timeout_s=60", *more]


def run(tmp_path, *more):
    return read_records(run_benchmark(compose("benchmark", overrides(tmp_path, *more))))


def faulty(tmp_path, fault, *more):
    # The first cases of the task are Li/100 and 110 (6 atoms), 111 (12), 210 (20).
    extra = [f"+calculator.build.fault='{fault}'", "+calculator.build.size=12", "limit=4"]
    return run(tmp_path, *FAULTY, *extra, *more)


def test_zero_scores_zero(tmp_path):
    records = run(tmp_path, "calculator=zero", "modes=[static,relaxed]")
    assert len(records) == 26
    assert {r.status for r in records} == {"ok"}
    assert all(r.value == 0.0 for r in records)
    one = next(r for r in records if r.case == "Li/100" and r.mode == "static")
    assert one.reference == pytest.approx(0.458, abs=1e-3)
    assert (one.unit, one.dtype, one.device, one.threads) == ("J/m²", "float64", "cpu", 1)
    assert one.wall_time > 0
    assert 10 < one.peak_memory < 4000
    assert {"python", "ase", "numpy"} <= set(one.versions)
    assert one.tags["source_split"] == "train"


def test_raising_gives_error_rows_with_the_text(tmp_path):
    records = run(tmp_path, "calculator=raising", "limit=3")
    assert [r.status for r in records] == ["error"] * 3
    assert records[0].detail == "CalculatorError: this control fails on every structure"
    assert records[0].value is None


def test_unknown_elements_are_named(tmp_path):
    records = run(tmp_path, "calculator=emt", "limit=2")
    assert [r.status for r in records] == ["unsupported_element"] * 2
    assert "does not know Li" in records[0].detail


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("exit", "error", "exited with code 3"),
        ("kill", "error", "ended by SIGKILL"),
        ("segfault", "error", "ended by SIGSEGV"),
        ("nan", "nan", "non-finite energy"),
        ("memory", "oom", "no memory left"),
    ],
)
def test_a_fault_costs_its_own_row(tmp_path, fault, status, text):
    records = faulty(tmp_path, fault)
    assert [r.case for r in records] == ["Li/100", "Li/110", "Li/111", "Li/210"]
    assert [r.status for r in records] == ["ok", "ok", status, "ok"]
    assert text in records[2].detail


@pytest.mark.parametrize("fault", ["exit", "kill"])
def test_two_workers_share_the_cases_and_survive_each_others_faults(tmp_path, fault):
    records = faulty(tmp_path, fault, "workers=2", "limit=9")
    assert len({r.case for r in records}) == len(records) == 9
    assert all((r.status == "error") == (r.atoms == 12) for r in records)
    assert 0 < sum(r.status == "error" for r in records) < 4
    assert [r.case for r in records][:2] == ["Li/100", "Li/110"]  # in order, whoever was first


def test_two_workers_that_cannot_start_give_each_case_one_row(tmp_path):
    more = ("+calculator.build.fault=nonsense", "+calculator.build.size=1", "workers=2", "limit=5")
    records = run(tmp_path, *FAULTY, *more)
    assert [r.status for r in records] == ["error"] * 5
    assert "unknown fault 'nonsense'" in records[4].detail


def test_two_workers_are_faster_than_one(tmp_path):
    """A calculator that waits: the time of the cases is shared, whatever the machine does."""
    waiting = ("+calculator.build.fault=wait", "+calculator.build.size=0", "limit=8")
    start = time.perf_counter()
    records = run(tmp_path / "two", *FAULTY, *waiting, "workers=2")
    took = time.perf_counter() - start
    assert {r.status for r in records} == {"ok"}
    assert took < sum(r.wall_time for r in records)


def test_a_hang_costs_its_own_row(tmp_path):
    start = time.perf_counter()
    records = faulty(tmp_path, "hang", "timeout_s=3")
    assert [r.status for r in records] == ["ok", "ok", "error", "ok"]
    assert "no answer within 3 s" in records[2].detail
    assert time.perf_counter() - start < 30


def test_a_calculator_that_cannot_be_built_costs_its_rows_once(tmp_path):
    records = run(
        tmp_path,
        "calculator=lennard_jones",
        "+calculator.build.nonsense=1",
        "limit=2",
        "calculator.build._target_=mlip.calculators.controls.Faulty",
    )
    assert [r.status for r in records] == ["error"] * 2
    assert records[0].detail.startswith("at construction: ValueError")


def test_targets_outside_the_allow_list_are_refused_before_work(tmp_path):
    config = compose(
        "benchmark", overrides(tmp_path, "calculator=zero", "calculator.build._target_=os.system")
    )
    with pytest.raises(ValueError, match=r"only names that begin with mlip\.calculators"):
        plan(config)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("tier=smal", "unknown tier 'smal'"),
        ("modes=[statick]", "did you mean 'static'"),
        ("timeout_s=0", "timeout_s is 0"),
        ("limit=-1", "limit is -1"),
        ("workers=0", "workers is 0"),
        ("task.property=os.system", "only functions of mlip.properties"),
    ],
)
def test_wrong_values_are_named_before_work(tmp_path, override, text):
    with pytest.raises(ValueError, match=text):
        plan(compose("benchmark", overrides(tmp_path, "calculator=zero", override)))
    assert not list(tmp_path.iterdir())


def test_a_limited_run_cannot_be_recorded(tmp_path):
    config = compose("benchmark", overrides(tmp_path, "calculator=zero", "record=true", "limit=1"))
    with pytest.raises(ValueError, match="record=true with a limit"):
        plan(config)


def test_resume_keeps_records_and_computes_only_the_rest(tmp_path):
    first = run(tmp_path, "calculator=zero", "limit=2")
    second = run(tmp_path, "calculator=zero", "limit=4")
    assert second[:2] == first  # wall times included: nothing was computed again
    with open_journal(tmp_path / "surface_energy/zero/records.jsonl") as journal:
        assert len(journal.records) == 4


def test_another_protocol_or_calculator_is_another_input(tmp_path):
    def keys(*more):
        checked = plan(compose("benchmark", overrides(tmp_path, *more)))
        return {(case.name, mode): key for key, (case, mode) in checked.hashes().items()}

    zero, loose = keys("calculator=zero"), keys("calculator=zero", "task.protocol.fmax=0.1")
    argon = keys("calculator=lennard_jones")
    assert len(set(zero.values())) == len(zero) == 390
    assert zero["Li/100", "static"] == loose["Li/100", "static"]
    assert zero["Li/100", "relaxed"] != loose["Li/100", "relaxed"]
    assert zero["Li/100", "static"] != argon["Li/100", "static"]


def test_failures_are_kept_unless_a_retry_is_asked_for(tmp_path):
    first = run(tmp_path, "calculator=raising", "limit=1")
    assert run(tmp_path, "calculator=raising", "limit=1") == first
    run(tmp_path, "calculator=raising", "limit=1", "retry_failed=true")
    with open_journal(tmp_path / "surface_energy/raising/records.jsonl") as journal:
        assert len(journal.records) == 2


def test_kill_of_the_runner_loses_no_finished_record(tmp_path):
    """Kill -9 while the third case hangs: two records stay, the worker ends, resume completes."""
    arguments = overrides(
        tmp_path, *FAULTY, "+calculator.build.fault=hang", "+calculator.build.size=12", "limit=4"
    )
    script = (
        "from mlip.benchmarks import run_benchmark; from mlip.config import compose; "
        f"run_benchmark(compose('benchmark', {arguments!r}))"
    )
    runner = subprocess.Popen([sys.executable, "-c", script])
    journal_path = tmp_path / "surface_energy/zero/records.jsonl"
    wait_for(lambda: journal_path.exists() and journal_path.read_bytes().count(b"\n") == 2)
    workers = psutil.Process(runner.pid).children()
    assert len(workers) == 1
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    wait_for(lambda: not workers[0].is_running() or workers[0].status() == psutil.STATUS_ZOMBIE)
    with journal_path.open("ab") as file:
        file.write(b'{"task": "surface_energy", "case": "Li/111", "mo')  # torn by the kill
    with journal_path.open("rb") as file:
        before = file.read().splitlines()[:2]
    records = run(tmp_path, *arguments, "timeout_s=3")
    assert [r.case for r in records] == ["Li/100", "Li/110", "Li/111", "Li/210"]
    assert [r.status for r in records] == ["ok", "ok", "error", "ok"]
    lines = journal_path.read_bytes().splitlines()
    assert lines[:2] == before
    assert len(lines) == 4


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)

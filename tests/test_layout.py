"""The tree keeps its one rule, and names agree between folders."""

import re
import subprocess
from pathlib import Path

import pytest

from mlip import config, paths

ROOT = Path(__file__).parents[1]
CONTENT = ("configs", "datasets", "benchmarks")
REGISTRIES = {
    "backbone": "mlip/models/backbones",
    "head": "mlip/models/heads",
    "term": "mlip/models/terms",
}


def tracked():
    result = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = result.stdout.splitlines()
    if result.returncode or not names:
        names = [
            str(p.relative_to(ROOT))
            for folder in (*CONTENT, "mlip", "tests")
            for p in (ROOT / folder).rglob("*")
            if p.is_file()
        ]
    return [name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("folder", CONTENT)
def test_content_folders_hold_no_python(folder):
    assert not list((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("group", REGISTRIES)
def test_every_option_has_its_module_and_every_module_its_option(group):
    modules = {p.stem for p in (ROOT / REGISTRIES[group]).glob("*.py")} - {"__init__"}
    assert modules == set(config.options(group))


def test_every_data_config_has_its_card():
    cards = {path.parent.name for path in paths.content("datasets").glob("*/card.yaml")}
    assert set(config.options("data")) - {"extxyz", "store", "mixture", "card"} <= cards


def test_every_task_has_its_folder_and_the_reverse():
    folders = {path.parent.name for path in paths.content("benchmarks").glob("*/card.yaml")}
    assert folders == set(config.options("task"))


def test_names_are_lower_snake_case():
    folders = [path for folder in CONTENT for path in (ROOT / folder).rglob("*") if path.is_dir()]
    bad = [str(p) for p in folders if not re.fullmatch(r"[a-z0-9_]+", p.name)]
    bad += [
        str(p)
        for p in (ROOT / "configs").rglob("*.yaml")
        if not re.fullmatch(r"[a-z0-9_]+", p.stem)
    ]
    assert not bad


def test_no_two_files_differ_in_case_only():
    names = [name.lower() for name in tracked()]
    assert len(names) == len(set(names))


def test_no_large_files():
    assert not [name for name in tracked() if (ROOT / name).stat().st_size > 1024 * 1024]


def test_no_machine_paths():
    pattern = re.compile(r"(?:^|[^A-Za-z0-9_.~-])/(?:work|root|home|opt)/[a-z.]")
    text = {".py", ".md", ".yaml", ".toml", ".json", ".html", ".txt", ".cff", ""}
    bad = [
        name
        for name in tracked()
        if Path(name).suffix in text
        and pattern.search((ROOT / name).read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not bad


def test_modules_are_short():
    long = {
        str(p): n
        for p in (ROOT / "mlip").rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long

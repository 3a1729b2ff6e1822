"""The Python environment that a calculator runs in: this one, or one built from its requirements.

Two potentials whose packages need different versions of a third cannot share an environment. Each
card therefore states its requirements, and what this environment does not meet is installed once
into a virtual environment of its own, kept under a hash of all that determines it.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mlip
from mlip.errors import suggest

CHOICES = ("auto", "current", "isolated")
FOLDER_VARIABLE = "MLIP_ENVIRONMENTS"
SUITE = "mlip-suite"
"""In a list of requirements: everything that mlip itself needs, not only its scoring code."""
_SCORING = ("ase>=3.26,<4", "numpy>=1.26,<3")
_SHARED = ("ase", "numpy", "torch")
_COMPLETE = "environment.json"
_TAIL = 500
_CONFLICT = re.compile(r"ResolutionImpossible|No solution found|conflicting dependencies", re.I)
_PROBE = """
import json, sys, sysconfig
from importlib.metadata import distributions
found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
print(json.dumps([sysconfig.get_path("purelib"), sys.version.split()[0], found]))
"""


@dataclass(frozen=True)
class Environment:
    """Where a calculator runs.

    Args:
        python: The interpreter.
        isolated: Whether it is one of its own.
        versions: Distribution, in its canonical form, to version; and ``python``.
        packages: Folder with its packages; None for the current environment.
        problem: Why it could not be built; empty if it was.
    """

    python: str = sys.executable
    isolated: bool = False
    versions: dict[str, str] = field(default_factory=dict, repr=False)
    packages: str | None = None
    problem: str = ""

    def version(self, name: str) -> str | None:
        """Return the version of a distribution; None if it is not installed."""
        if name == SUITE:
            return mlip.__version__
        if self.isolated:
            return self.versions.get(canonicalize_name(name))
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    def shared_versions(self) -> dict[str, str]:
        """Return the versions of Python, mlip and what every calculator needs."""
        python = self.versions.get("python", platform.python_version())
        found = {name: self.version(name) for name in (SUITE, *_SHARED)}
        return {"python": python, **{key: value for key, value in found.items() if value}}

    def package_folder(self, name: str) -> Path | None:
        """Return the folder of an importable package; None if it is not installed."""
        if self.isolated:
            folder = Path(self.packages or "") / name
            return folder if folder.is_dir() else None
        found = find_spec(name)
        if found is None or not found.submodule_search_locations:
            return None
        return Path(next(iter(found.submodule_search_locations)))

    def variables(self) -> dict[str, str]:
        """Return the environment variables of its processes, without other packages' paths."""
        if not self.isolated:
            return dict(os.environ)
        hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        kept = {key: value for key, value in os.environ.items() if key not in hidden}
        return {**kept, "PYTHONNOUSERSITE": "1"}


def choose(card: Mapping[str, Any], choice: str) -> bool:
    """Return whether a calculator needs an environment of its own.

    Args:
        card: Of the calculator.
        choice: ``current``, ``isolated``, or ``auto``: isolated if the current environment does
            not meet the requirements.

    Raises:
        ValueError: For another choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"environment is {choice!r}{suggest(str(choice), CHOICES)}")
    if choice == "auto":
        return not all(_met(requirement) for requirement in card.get("requirements") or ())
    return choice == "isolated"


def is_built(requirements: Sequence[str], links: Sequence[str] = ()) -> bool:
    """Return whether the environment of these requirements exists already."""
    return (_folder(requirements, links) / _COMPLETE).is_file()


def environment(
    requirements: Sequence[str], links: Sequence[str] = (), timeout: float = 3600.0
) -> Environment:
    """Return the isolated environment of some requirements, building it if there is none.

    It is built by uv where that is installed, else by venv and pip, under a lock; what a kill left
    half built is built anew. Where torch here is a build for CPUs, the same torch is asked for, and
    any other one only if the requirements refuse it.

    Args:
        requirements: As pip takes them; ``mlip-suite`` stands for what mlip itself needs.
        links: Pages or folders where wheels are found beside the index.
        timeout: For each command of the installation, s.

    Returns:
        The environment; with ``problem`` set if it could not be built. The whole output of the
        installer is in a file named there.
    """
    folder = _folder(requirements, links)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / _COMPLETE).is_file():
            problem = _build(folder, requirements, links, timeout)
            if problem:
                shutil.rmtree(folder, ignore_errors=True)
                return Environment(isolated=True, problem=problem)
        return Environment(**json.loads((folder / _COMPLETE).read_text(encoding="utf-8")))


def cache_folder() -> Path:
    """Return ``$MLIP_ENVIRONMENTS``, else ``~/.cache/mlip/environments``."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "mlip" / "environments"


def _met(requirement: str) -> bool:
    wanted = Requirement(requirement)
    if wanted.name == SUITE or (wanted.marker and not wanted.marker.evaluate()):
        return True
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _folder(requirements: Sequence[str], links: Sequence[str] = ()) -> Path:
    content = {
        "requirements": [*sorted(requirements), *links],
        "python": platform.python_version(),
        "mlip": mlip.__version__,
        "torch": _pinned_torch(),
        "machine": f"{sys.platform}-{platform.machine()}",
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    first = Requirement(requirements[0]).name if requirements else "ase"
    return cache_folder() / f"{canonicalize_name(first)}-{key}"


def _pinned_torch() -> str | None:
    """Return the version of torch here if it is a build for CPUs; None for any other."""
    try:
        found = version("torch")
    except PackageNotFoundError:
        return None
    return found.partition("+")[0] if found.endswith("+cpu") else None


def _build(folder: Path, requirements: Sequence[str], links: Sequence[str], timeout: float) -> str:
    """Build the environment; return why not, or nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    log = folder.with_name(f"{folder.name}.log")
    log.write_text("", encoding="utf-8")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = [*_SCORING, *_expanded(requirements)]
    wanted += [f"--find-links={link}" for link in links]
    uv = shutil.which("uv")
    create = (
        [uv, "venv", "--python", sys.executable, str(folder)]
        if uv
        else [sys.executable, "-m", "venv", str(folder)]
    )
    problem = _run(create, log, timeout)
    if not problem:
        problem = _install(python, wanted, uv, log, timeout)
    if problem:
        return f"{problem} (all of it in {log})"
    return _finish(folder, python, log)


def _install(python: Path, wanted: list[str], uv: str | None, log: Path, timeout: float) -> str:
    if uv:
        command = [uv, "pip", "install", "--python", str(python)]
    else:
        command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    torch = _pinned_torch()
    if torch is None:
        return _run([*command, *wanted], log, timeout)
    constraints = log.with_suffix(".constraints")
    constraints.write_text(f"torch=={torch}\n", encoding="utf-8")
    problem = _run([*command, "--constraint", str(constraints), *wanted], log, timeout)
    if problem and _CONFLICT.search(log.read_text(encoding="utf-8")):
        problem = _run([*command, *wanted], log, timeout)
    return problem


def _finish(folder: Path, python: Path, log: Path) -> str:
    """Make mlip importable there, and write down what the environment holds."""
    try:
        probe = subprocess.run(
            [str(python), "-c", _PROBE], capture_output=True, text=True, check=True, timeout=300
        )
        packages, number, found = json.loads(probe.stdout)
        _link(Path(packages) / "mlip")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"the environment in {folder} does not run: {error} (see {log})"
    versions = {"python": number, **{canonicalize_name(k): v for k, v in found.items()}}
    built = Environment(str(python), True, versions, packages)
    draft = folder / f".{_COMPLETE}"
    draft.write_text(json.dumps(asdict(built), indent=1), encoding="utf-8")
    draft.replace(folder / _COMPLETE)
    return ""


def _link(target: Path) -> None:
    """Let the environment see this package, and nothing of what is installed beside it."""
    source = Path(mlip.__file__).resolve().parent
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # a file system without links
        shutil.copytree(source, target)


def _expanded(requirements: Sequence[str]) -> list[str]:
    """Return the requirements with those of mlip itself in place of its name."""
    found: list[str] = []
    for text in requirements:
        if Requirement(text).name == SUITE:
            found += [item for item in _of_suite() if "extra ==" not in item]
        else:
            found.append(text)
    return found


def _of_suite() -> list[str]:
    try:
        return list(requires(SUITE) or ())
    except PackageNotFoundError:  # run from a checkout that is not installed
        import tomllib

        path = Path(mlip.__file__).resolve().parent.parent / "pyproject.toml"
        return list(tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"])


def _run(command: Sequence[str], log: Path, timeout: float) -> str:
    """Run a command; return why it failed, or nothing."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        start = file.tell()
        try:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return f"the installation took more than {timeout:g} s"
        except OSError as error:
            return f"{command[0]} cannot be started: {error}"
    if done.returncode == 0:
        return ""
    said = log.read_bytes()[start:].decode(errors="replace").strip()
    errors = [line for line in said.splitlines() if "error" in line.lower()] or [said]
    return f"the installation failed: {' '.join(errors)[-_TAIL:]}"

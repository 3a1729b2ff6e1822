"""Structures around a minimum or along MD, for a set with charges made from a recipe."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from mlip import config as configs
from mlip import paths
from mlip.calculators.build import build_calculator
from mlip.data.frame import Frame
from mlip.data.write_extxyz import to_extxyz
from mlip.errors import suggest


@dataclass(frozen=True)
class Recipe:
    """How a set is made: systems, sampling, seed.

    Args:
        name: File in ``configs/recipe``.
        calculator: Name in ``configs/calculator`` that relaxes, moves and labels.
        systems: ``symbols``, ``positions`` (Å) and ``total_charge`` (e) by name.
        temperature_K: Of the Langevin MD.
        timestep_fs: Of the MD.
        friction_per_fs: Of the thermostat.
        interval: Steps between two frames.
        equilibration: Steps before the first frame.
        relax_fmax: The MD starts from the minimum found to this force, eV/Å; None: as given.
        frames: Frames of each system.
        seed: Everything random follows from it.
    """

    name: str
    calculator: str
    systems: Mapping[str, Mapping[str, Any]]
    temperature_K: float
    timestep_fs: float
    friction_per_fs: float
    interval: int
    equilibration: int
    relax_fmax: float | None
    frames: int
    seed: int


def load_recipe(name: str) -> Recipe:
    """Return a recipe of ``configs/recipe``.

    Raises:
        ValueError: If there is none of this name, or a key of it is wrong.
    """
    known = configs.options("recipe")
    if name not in known:
        raise ValueError(f"there is no recipe {name!r}{suggest(name, known)}")
    path = paths.content("configs") / "recipe" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content.pop("citation", None)
    try:
        return Recipe(**content)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def sample(recipe: Recipe, frames: int | None = None, seed: int | None = None) -> Iterator[Frame]:
    """Yield the structures of a recipe; the same seed gives the same ones.

    Args:
        recipe: What to make.
        frames: Frames of each system; None takes the recipe's.
        seed: None takes the recipe's.

    Raises:
        RuntimeError: If a system does not relax.
    """
    for name in recipe.systems:
        yield from _system(name, recipe, frames, seed)


def write_sample(
    recipe: Recipe, output: str | Path, frames: int | None = None, seed: int | None = None
) -> int:
    """Write the structures of a recipe as extended XYZ, to be labelled; return how many.

    After a kill the same call goes on: systems that are finished are not run again.

    Raises:
        ValueError: If the output exists.
    """
    output = Path(output)
    if output.exists():
        raise ValueError(f"{output} exists: remove it, or name another output")
    job = json.dumps([asdict(recipe), frames, seed], sort_keys=True).encode()
    parts = output.with_name(f".{output.name}.{hashlib.sha256(job).hexdigest()[:12]}")
    parts.mkdir(parents=True, exist_ok=True)
    done = [parts / f"{name}.extxyz" for name in recipe.systems]
    for name, part in zip(recipe.systems, done, strict=True):
        if not part.exists():
            _write_whole(part, (to_extxyz(f) for f in _system(name, recipe, frames, seed)))
    _write_whole(output, (part.read_text(encoding="utf-8") for part in done))
    shutil.rmtree(parts)
    return len(recipe.systems) * (frames or recipe.frames)


def _write_whole(path: Path, texts: Iterable[str]) -> None:
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(texts)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _system(name: str, recipe: Recipe, frames: int | None, seed: int | None) -> Iterator[Frame]:
    content = configs.compose("label", [f"calculator={recipe.calculator}"]).calculator
    calculator = build_calculator(content.build)
    atoms = _structure(recipe.systems[name])
    generator = _generator(name, recipe.seed if seed is None else seed)
    yield from _run(atoms, name, recipe, calculator, generator, frames or recipe.frames)


def _structure(system: Mapping[str, Any]) -> Atoms:
    atoms = Atoms(system["symbols"], positions=np.array(system["positions"], dtype=float))
    atoms.info["total_charge"] = int(system["total_charge"])
    return atoms


def _run(
    atoms: Atoms,
    name: str,
    recipe: Recipe,
    calculator: BaseCalculator,
    generator: np.random.Generator,
    frames: int,
) -> Iterator[Frame]:
    atoms.calc = calculator
    if recipe.relax_fmax is not None and not _relaxes(atoms, recipe.relax_fmax, generator):
        raise RuntimeError(f"{name} of {recipe.name} does not relax to {recipe.relax_fmax} eV/Å")
    atoms.set_constraint(FixCom())  # it does not drift; the frames are written without it
    MaxwellBoltzmannDistribution(atoms, temperature_K=recipe.temperature_K, rng=generator)
    motion = Langevin(
        atoms,
        recipe.timestep_fs * units.fs,
        temperature_K=recipe.temperature_K,
        friction=recipe.friction_per_fs / units.fs,
        rng=generator,
        fixcm=False,
    )
    motion.run(recipe.equilibration)
    charge = np.asarray(float(atoms.info["total_charge"]))
    for index in range(frames):
        motion.run(recipe.interval)
        structure = Atoms(atoms.numbers, positions=atoms.positions - atoms.get_center_of_mass())
        info = {"group": name, "recipe": recipe.name, "step": index * recipe.interval}
        yield Frame(structure, {"total_charge": charge}, f"{recipe.name}/{name}#{index}", info)


def _relaxes(atoms: Atoms, fmax: float, generator: np.random.Generator) -> bool:
    # Off the symmetric start, which may be a saddle point.
    atoms.positions += generator.normal(scale=0.02, size=atoms.positions.shape)
    return bool(BFGS(atoms, logfile=None).run(fmax=fmax, steps=500))


def _generator(name: str, seed: int) -> np.random.Generator:
    text = json.dumps([name, seed]).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

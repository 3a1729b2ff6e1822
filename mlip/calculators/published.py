"""Published potentials through the calculators of their own packages; each package is optional."""

import contextlib
import io
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from typing import Any

from ase.calculators.calculator import Calculator

from mlip.errors import suggest


def sevennet(model: str, device: str = "cpu", modal: str | None = None) -> Calculator:
    """Return a SevenNet by the calculator of the package sevenn.

    Args:
        model: A name that sevenn knows (it downloads what its wheel lacks), or the path of a file
            within the package, such as ``pretrained_potentials/SevenNet_MF_0/….pth``.
        device: ``cpu`` or ``cuda``.
        modal: Which training set of a multi-fidelity model to imitate.

    Raises:
        ModuleNotFoundError: If sevenn is not installed.
        ValueError: If the model has several modals and none of them is named.
    """
    module = _import("sevenn.calculator", "sevenn")
    shipped = files("sevenn").joinpath(model)
    path = str(shipped) if shipped.is_file() else model
    return module.SevenNetCalculator(path, device=device, modal=modal)


def mace(
    model: str, device: str = "cpu", dtype: str = "float64", head: str | None = None
) -> Calculator:
    """Return a MACE foundation model of materials, which mace-torch downloads.

    Args:
        model: A name that ``mace_mp`` knows, such as ``medium`` or ``medium-mpa-0``, or a file.
        device: ``cpu`` or ``cuda``.
        dtype: ``float32`` or ``float64``.
        head: Which head of a multi-head model.

    Raises:
        ModuleNotFoundError: If mace-torch is not installed.
        RuntimeError: If the download fails.
    """
    module = _import("mace.calculators", "mace-torch")
    more = {} if head is None else {"head": head}
    with _quiet():
        return module.mace_mp(model=model, device=device, default_dtype=dtype, **more)


def mattersim(model: str, device: str = "cpu") -> Calculator:
    """Return a MatterSim, whose weights its package downloads.

    Args:
        model: ``MatterSim-v1.0.0-1M.pth``, ``MatterSim-v1.0.0-5M.pth`` or a file.
        device: ``cpu`` or ``cuda``.

    Raises:
        ModuleNotFoundError: If mattersim is not installed.
    """
    module = _import("mattersim.forcefield", "mattersim")
    return module.MatterSimCalculator(load_path=model, device=device)


def orb(model: str, device: str = "cpu", precision: str = "float32-highest") -> Calculator:
    """Return an Orb, whose weights its package downloads.

    Args:
        model: A name of ``ORB_PRETRAINED_MODELS``, such as ``orb-v3-conservative-inf-omat``.
        device: ``cpu`` or ``cuda``.
        precision: ``float32-high``, ``float32-highest`` or ``float64``.

    Raises:
        ModuleNotFoundError: If orb-models is not installed.
        ValueError: For an unknown name.
    """
    pretrained = _import("orb_models.forcefield.pretrained", "orb-models")
    calculator = _import("orb_models.forcefield.calculator", "orb-models")
    known = pretrained.ORB_PRETRAINED_MODELS
    if model not in known:
        raise ValueError(f"orb-models has no model {model!r}{suggest(model, known)}")
    return calculator.ORBCalculator(known[model](device=device, precision=precision), device=device)


def matgl(model: str) -> Calculator:
    """Return a potential of MatGL (M3GNet, TensorNet), which it downloads from Hugging Face.

    Args:
        model: Name within the organisation ``materialyze``.

    Raises:
        ModuleNotFoundError: If matgl is not installed.
    """
    package, module = _import("matgl", "matgl"), _import("matgl.ext.ase", "matgl")
    potential = package.load_model(model)
    return module.PESCalculator(potential, stress_unit="eV/A3", use_voigt=True)


def uma(model: str, task: str = "omat", device: str = "cpu") -> Calculator:
    """Return a UMA by fairchem-core 2; its weights need an account that accepted their licence.

    Args:
        model: A name such as ``uma-s-1p2p1``, or a checkpoint file.
        task: Which level of theory: ``omat`` for inorganic crystals.
        device: ``cpu`` or ``cuda``.

    Raises:
        ModuleNotFoundError: If fairchem-core is not installed.
    """
    module = _import("fairchem.core", "fairchem-core>=2")
    unit = module.pretrained_mlip.get_predict_unit(model, device=device)
    return module.FAIRChemCalculator(unit, task_name=task)


def ocp(checkpoint: str, device: str = "cpu") -> Calculator:
    """Return an eSEN or EquiformerV2 by fairchem-core 1, from a checkpoint file fetched before.

    Args:
        checkpoint: File, such as ``esen_30m_oam.pt``.
        device: ``cpu`` or ``cuda``.

    Raises:
        ModuleNotFoundError: If fairchem-core is not installed.
    """
    module = _import("fairchem.core", "fairchem-core[torch-extras]==1.10.0")
    return module.OCPCalculator(checkpoint_path=checkpoint, cpu=device == "cpu")


def grace(model: str) -> Calculator:
    """Return a GRACE foundation model, which tensorpotential downloads; TensorFlow finds the GPU.

    Args:
        model: A name that ``grace_fm`` knows, such as ``GRACE-2L-OAM``.

    Raises:
        ModuleNotFoundError: If tensorpotential is not installed.
    """
    module = _import("tensorpotential.calculator.foundation_models", "tensorpotential")
    with _quiet():
        return module.grace_fm(model)


def nequip(model: str, device: str = "cpu") -> Calculator:
    """Return a NequIP or Allegro foundation model from nequip.net, or from a package file.

    Args:
        model: ``nequip.net:group/name:version``, or a ``.nequip.zip`` file.
        device: ``cpu`` or ``cuda``.

    Raises:
        ModuleNotFoundError: If nequip is not installed.
    """
    module = _import("nequip.integrations.ase", "nequip>=0.19,<0.20")
    return module.NequIPCalculator._from_saved_model(model, device=device)


def deepmd(model: str, head: str | None = None) -> Calculator:
    """Return a DPA by DeePMD-kit, which downloads the models that it knows by name.

    Args:
        model: A name such as ``DPA-3.1-3M``, or a file.
        head: Branch of a multi-task model; ``dp --pt show FILE model-branch`` lists them.

    Raises:
        ModuleNotFoundError: If deepmd-kit is not installed.
    """
    module = _import("deepmd.calculator", "deepmd-kit[torch]")
    return module.DP(model=model, head=head)


def _import(module: str, requirement: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ModuleNotFoundError: If it is not installed, with the command for it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module} cannot be imported ({error}): pip install '{requirement}'", name=error.name
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a package prints at construction off the screen; its errors still rise."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield

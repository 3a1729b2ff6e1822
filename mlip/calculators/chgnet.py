"""CHGNet with the weights that ship in its wheel."""

import contextlib
import io
import warnings
from importlib.util import find_spec

from ase.calculators.calculator import Calculator

from mlip.errors import suggest

VERSIONS = ("0.2.0", "0.3.0", "r2scan")


def chgnet(version: str = "0.3.0", device: str = "cpu") -> Calculator:
    """Return the calculator of a published CHGNet.

    Args:
        version: ``0.2.0``, ``0.3.0`` or ``r2scan``.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ValueError: For another version.
        ModuleNotFoundError: If the package chgnet is not installed, with the command for it.
    """
    if version not in VERSIONS:
        raise ValueError(f"unknown version {version!r} of CHGNet{suggest(version, VERSIONS)}")
    if find_spec("chgnet") is None:
        raise ModuleNotFoundError(
            "the calculator chgnet needs the package chgnet: pip install 'mlip-suite[chgnet]'",
            name="chgnet",
        )
    # its own conversion of volumes draws this notice from torch, once a process
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its device; errors still raise
        from chgnet.model.dynamics import CHGNetCalculator
        from chgnet.model.model import CHGNet

        model = CHGNet.load(model_name=version, use_device=device, verbose=False)
        return CHGNetCalculator(model, use_device=device)

"""Train, benchmark and deploy machine-learning interatomic potentials for battery interfaces."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlip.calculators.checkpoint import MlipCalculator
    from mlip.models.loading import load
    from mlip.models.potential import Potential

__version__ = "0.1.0"
__all__ = ["MlipCalculator", "Potential", "__version__", "load"]

_LAZY = {
    "load": "mlip.models.loading",
    "Potential": "mlip.models.potential",
    "MlipCalculator": "mlip.calculators.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mlip' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)

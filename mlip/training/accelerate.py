"""Faster steps on request, held against the plain one: the option ``accelerate`` of a training."""

import copy
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch
from torch import Tensor

from mlip import runtime
from mlip.graph import AtomGraph
from mlip.models.potential import Potential
from mlip.training import ranks
from mlip.training.step import Compute, Goal, Step, gradients

LOSS, GRADIENT = 1e-6, 1e-5
"""Deviations from the plain step, relative, that are allowed beside rounding."""
ROUNDING = 10.0
"""Deviation allowed further, in units of what single precision does to the plain step."""
_SMALL, _LEAST = 1e-6, 1e-300  # least gradient, of that of all weights, and loss to compare with


def building(accelerate: str | None) -> AbstractContextManager[None]:
    """Return the context in which a potential has to be built."""
    return runtime.plain_e3nn() if accelerate == "compile" else nullcontext()


def accelerated(accelerate: str | None) -> Compute | None:
    """Return what gives the gradients of a batch; None stands for the plain step."""
    if accelerate is None:
        return None
    if accelerate != "compile":
        return KernelStep(accelerate)
    from mlip.training.compiled import CompiledStep

    return CompiledStep()


def refusal(accelerate: str | None, backbone: str, device: str) -> str | None:
    """Return why an option cannot be had here, and what to do; None if it can.

    Args:
        accelerate: The option.
        backbone: Full name of the class of the backbone.
        device: ``cpu`` or ``cuda``.
    """
    if accelerate in (None, "compile"):
        return None
    if backbone != "mlip.models.backbones.mace.Mace":
        return (
            f"accelerate is {accelerate}, which is there for the backbone mace only: give "
            "accelerate=null, or compile"
        )
    from mlip.models.mace_kernels import PACKAGES

    module, package = PACKAGES[accelerate]
    if find_spec(module) is None:
        return f"accelerate is {accelerate}, whose package is not installed: pip install {package}"
    if device == "cpu":
        return (
            f"accelerate is {accelerate}, whose kernels need a CUDA GPU, and the training is on "
            "the CPU: give accelerate=compile, or null"
        )
    return None


class KernelStep:
    """The plain step on convolutions of another package, held against our own on the first batch.

    Args:
        name: ``cuequivariance`` or ``openequivariance``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._checked = False

    def __call__(self, potential: Potential, goal: Goal, batch: AtomGraph) -> Step:
        """Return the loss of a batch and its gradients.

        Raises:
            ValueError: If the kernels give other numbers.
        """
        if self._checked:
            return gradients(potential, goal, batch)
        from mlip.models.mace_kernels import use_kernels

        reference = Reference(potential, goal, batch)
        use_kernels(potential.backbone, self.name)  # type: ignore[arg-type]
        step = gradients(potential, goal, batch)
        loss, gradient = reference.check(self.name, step)
        self._checked = True
        if ranks.rank() == 0:
            print(  # noqa: T201
                f"{self.name}: equal to the plain step to {loss:.0e} of the loss and "
                f"{gradient:.0e} of the gradient"
            )
        return step


class Reference:
    """The plain step on one batch, and how far rounding takes it.

    Allowed are ``LOSS`` of the loss and ``GRADIENT`` of the gradient of each tensor of weights, and
    ``ROUNDING`` times what the plain step itself is off a step in double precision: near the end
    of a training the loss is small beside the rounding of the energies.

    Args:
        potential: The potential.
        goal: What the step minimises.
        batch: The batch.
    """

    def __init__(self, potential: Potential, goal: Goal, batch: AtomGraph) -> None:
        self._goal = goal
        self.plain = gradients(potential, goal, batch)
        double = copy.deepcopy(potential).to_precision(torch.float64)
        loss, found = self._deviations(gradients(double, goal, batch))
        self.allowed = LOSS + ROUNDING * loss, GRADIENT + ROUNDING * found

    def check(self, name: str, step: Step) -> tuple[float, float]:
        """Return the deviation of the loss of a step, and the largest of its gradients, relative.

        Raises:
            ValueError: With the numbers, if one is larger than what is allowed.
        """
        loss, found = self._deviations(step)
        allowed, most = self.allowed
        if loss <= allowed and bool((found <= most).all()):
            return loss, float(found.max())
        worst = int((found / most).nan_to_num(torch.inf).argmax())
        raise ValueError(
            f"accelerate is {name}, but its step differs from the plain one: the loss is "
            f"{float(step.loss):.8g}, not {float(self.plain.loss):.8g} ({loss:.1e} of it, allowed "
            f"{allowed:.1e}), and a gradient differs by {float(found[worst]):.1e} of it (allowed "
            f"{float(most[worst]):.1e}): train with accelerate=null"
        )

    def _deviations(self, step: Step) -> tuple[float, Tensor]:
        """Return how far a step is off the plain one: loss and parts, and each gradient."""
        plain = self.plain
        parts = [
            self._goal.weights[name] * (step.parts[name] - part).abs()
            for name, part in plain.parts.items()
        ]
        loss = float(torch.stack([*parts, (step.loss - plain.loss).abs()]).max())
        pairs = [
            (old.double(), old - old if new is None else new.double())
            for old, new in zip(plain.gradients, step.gradients, strict=True)
            if old is not None
        ]
        sizes = torch.stack([old.norm() for old, _ in pairs])
        wrong = torch.stack([(new - old).norm() for old, new in pairs])
        return loss / max(abs(float(plain.loss)), _LEAST), wrong / (sizes + _SMALL * sizes.norm())

"""Faster steps on request: what the option ``accelerate`` of a training stands for."""

from contextlib import AbstractContextManager, nullcontext

from mlip import runtime
from mlip.training.step import Compute


def building(accelerate: str | None) -> AbstractContextManager[None]:
    """Return the context in which a potential has to be built."""
    return runtime.plain_e3nn() if accelerate == "compile" else nullcontext()


def accelerated(accelerate: str | None) -> Compute | None:
    """Return what gives the gradients of a batch; None stands for the uncompiled step."""
    if accelerate is None:
        return None
    from mlip.training.compiled import CompiledStep

    return CompiledStep()

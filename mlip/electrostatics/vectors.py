"""Vectors and lengths of pairs, differentiable to any order, with few passes over memory."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pair_vectors(
    positions: Float[Tensor, "atoms 3"],
    moved: Float[Tensor, "images 3"],
    first: Int[Tensor, " pairs"],
    second: Int[Tensor, " pairs"],
    image: Int[Tensor, " pairs"],
) -> Float[Tensor, "pairs 3"]:
    """Return ``positions[second] - positions[first] + moved[image]``.

    Args:
        positions: Of the atoms, Å.
        moved: Translations that occur, Å; none if there are no images.
        first: First atom of each pair.
        second: Second atom of each pair.
        image: Translation of each pair.
    """
    return _Vectors.apply(positions, moved, first, second, image)  # type: ignore[return-value]


def lengths(vectors: Float[Tensor, "pairs 3"]) -> Float[Tensor, " pairs"]:
    """Return the lengths of vectors, none of them zero."""
    return _Length.apply(vectors)  # type: ignore[return-value]


class _Vectors(torch.autograd.Function):
    """A linear map: its derivative is the sum over pairs, whose derivative is the map again."""

    @staticmethod
    def forward(
        ctx: Any, positions: Tensor, moved: Tensor, first: Tensor, second: Tensor, image: Tensor
    ) -> Tensor:
        ctx.save_for_backward(first, second, image)
        ctx.sizes = positions.shape[0], moved.shape[0]
        vectors = positions.index_select(0, second)
        vectors -= positions.index_select(0, first)
        if moved.shape[0]:
            vectors += moved.index_select(0, image)
        return vectors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        first, second, image = (index.long() for index in ctx.saved_tensors)  # sums are faster
        (gradient,) = gradients
        atoms, images = ctx.sizes
        none = gradient.new_zeros(atoms, 3)
        on_atoms = none.index_add(0, second, gradient) - none.index_add(0, first, gradient)
        if not images:
            return on_atoms, gradient.new_zeros(0, 3), None, None, None
        if not ctx.needs_input_grad[1]:
            return on_atoms, None, None, None, None
        return on_atoms, gradient.new_zeros(images, 3).index_add(0, image, gradient), *[None] * 3


class _Length(torch.autograd.Function):
    """The norm, without the care for zero vectors that costs as much as all the rest."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        result = torch.linalg.vector_norm(vectors, dim=1)
        ctx.save_for_backward(vectors, result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # type: ignore[override]
        vectors, result = ctx.saved_tensors
        return vectors * (gradients[0] / result)[:, None]

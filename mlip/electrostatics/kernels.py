"""The radial functions of Gaussian charges, smooth to any order, with point charges as a limit."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mlip.units import COULOMB


def coulomb(
    distances: Float[Tensor, " pairs"], variances: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Return ``k_e erf(R/(√2 γ))/R``, the interaction of two unit Gaussians, eV/e².

    Args:
        distances: R, Å, positive.
        variances: ``γ² = σ_i² + σ_j²``, Å²; zero for two points.
    """
    gaussian = variances > 0
    gamma = torch.where(gaussian, 2 * variances, 1.0).sqrt()
    return COULOMB * torch.where(gaussian, torch.erf(distances / gamma), 1.0) / distances


def short_range(
    distances: Float[Tensor, " pairs"],
    variances: Float[Tensor, " pairs"],
    split: Float[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """Return ``k_e [erfc(R/(√2 η)) - erfc(R/(√2 γ))]/R``, what reciprocal space leaves, eV/e².

    Args:
        distances: R, Å, positive.
        variances: ``γ² = σ_i² + σ_j²``, Å²; zero for two points.
        split: η, the width of the Ewald split, Å.
    """
    near = torch.erfc(distances / (math.sqrt(2) * split))
    gaussian = variances > 0
    if gaussian.any():
        gamma = torch.where(gaussian, 2 * variances, 1.0).sqrt()
        near = near - torch.where(gaussian, torch.erfc(distances / gamma), 0.0)
    return COULOMB * near / distances


def self_interaction(widths: Float[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
    """Return ``k_e/(σ √π)``, twice the self energy of a unit Gaussian, eV/e²; none of a point."""
    gaussian = widths > 0
    sigma = torch.where(gaussian, widths, 1.0)
    return torch.where(gaussian, COULOMB / (math.sqrt(math.pi) * sigma), 0.0)

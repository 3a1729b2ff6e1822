"""Forces read from the vectors of the backbone: cheap to train on, but not conservative."""

from collections.abc import Sequence

from torch import Tensor, nn

from mlip.graph import Geometry
from mlip.models.backbone import Features
from mlip.models.head import Head
from mlip.runtime import import_e3nn


class DirectForces(Head):
    """``F_i = Σ_lc g_lc(h_i^L) v_ilc`` of the vectors ``v`` of all layers, gated by invariants.

    For the first stage of a training: its gradient needs no second derivatives of the energy, and
    the features that it teaches serve the conservative forces of the second stage (Bigi et al.,
    arXiv 2412.11569; Fu et al., arXiv 2502.12147). The gates are those of the equivariant blocks
    of PaiNN (Schütt et al., arXiv 2102.03150). No checkpoint keeps this head, and its output is
    never called ``forces``.

    Args:
        channels: Invariants after each layer of the backbone.
        irreps: Equivariant features after each layer of the backbone.
        hidden: Width of the hidden layer of the gates.

    Raises:
        ValueError: If the backbone has no vectors.
    """

    gives = ("direct_forces",)
    needs = ("channels", "irreps")
    own_label = True
    auxiliary = True

    def __init__(self, channels: Sequence[int], irreps: Sequence[str], hidden: int = 64) -> None:
        super().__init__()
        self.vectors = [
            (layer, part.start, mul)
            for layer, text in enumerate(irreps)
            for part, (mul, irrep) in _parts(text)
            if str(irrep) == "1o"
        ]
        if not self.vectors:
            has = "; ".join(irreps) or "none"
            raise ValueError(
                "direct forces are read from vectors, but this backbone has none (its equivariant "
                f"features: {has}): give model.backbone.max_l=1, choose another backbone, or train "
                "without them, stages=one"
            )
        width = sum(mul for _, _, mul in self.vectors)
        self.gates = nn.Sequential(
            nn.Linear(channels[-1], hidden), nn.SiLU(), nn.Linear(hidden, width)
        )

    def forward(
        self, features: Features, geometry: Geometry, outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``direct_forces`` (atoms, 3), eV/Å, float64."""
        gates = self.gates(features.invariant[-1])
        forces, used = gates.new_zeros(len(gates), 3), 0
        for layer, start, mul in self.vectors:
            vectors = features.equivariant[layer][:, start : start + 3 * mul]
            gate = gates[:, used : used + mul]
            forces = forces + (gate[..., None] * vectors.reshape(-1, mul, 3)).sum(1)
            used += mul
        return {"direct_forces": forces.double()}


def _parts(text: str):  # noqa: ANN202  pairs of a slice and an e3nn multiplicity with its irrep
    irreps = import_e3nn().Irreps(text)
    return list(zip(irreps.slices(), irreps, strict=True))

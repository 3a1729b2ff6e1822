"""The pairs of atoms of a batch, listed once for a plan, and their distances."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlip.electrostatics.sparse import SparsePattern, index_type
from mlip.electrostatics.system import ChargedSystem
from mlip.electrostatics.vectors import lengths, pair_vectors
from mlip.errors import StructureError
from mlip.neighbors import pair_list

OVERLAP = 1e-3
"""Atoms closer than this, Å, are refused: they are a mistake of the structure."""
CHUNK = 1_000_000
"""Pairs whose intermediate values are held at a time."""
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From distances (Å), variances (Å²) and structures of pairs to their values."""


@dataclass(frozen=True)
class Pairs:
    """Every pair once, sorted by its first atom; an atom and its own image are a pair too.

    Args:
        first: (pairs,) an atom.
        second: (pairs,) the other.
        graph: (pairs,) their structure.
        image: (pairs,) which translation moves the second atom, an index into ``shifts``.
        shifts: (images, 3) lattice translations that occur, in whole lattice vectors.
        shift_graph: (images,) their structure.
        atoms: Number of atoms of all structures.
    """

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    graph: Int[Tensor, " pairs"]
    image: Int[Tensor, " pairs"]
    shifts: Float[Tensor, "images 3"]
    shift_graph: Int[Tensor, " images"]
    atoms: int

    def distances(
        self, positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "graphs 3 3"]
    ) -> Float[Tensor, " pairs"]:
        """Return the distance of each pair, Å, differentiable in positions and cell."""
        moved = (self.shifts[:, :, None] * cell[self.shift_graph]).sum(1)
        return lengths(pair_vectors(positions, moved, self.first, self.second, self.image))

    def variances(self, widths: Float[Tensor, " atoms"]) -> Float[Tensor, " pairs"]:
        """Return ``γ² = σ_i² + σ_j²`` of each pair, Å²."""
        squares = widths.square()
        first, second = self.first.long(), self.second.long()
        return squares.index_select(0, first) + squares.index_select(0, second)

    def values(self, kernel: Kernel, system: ChargedSystem) -> Float[Tensor, " pairs"]:
        """Return a function of every pair, differentiable as the kernel is.

        Of many pairs, what lies between is computed in pieces and again for derivatives, so that
        memory hardly exceeds that of the values.

        Args:
            kernel: The function.
            system: The structures, with the cells that the shifts count.
        """

        def of(piece: Pairs) -> Tensor:
            distances = piece.distances(system.positions, system.cell)
            return kernel(distances, piece.variances(system.widths), piece.graph)

        count = self.first.shape[0]
        if count <= CHUNK:
            return of(self)
        pieces = [self.keep(slice(start, start + CHUNK)) for start in range(0, count, CHUNK)]
        if not torch.is_grad_enabled():
            return torch.cat([of(piece) for piece in pieces])
        again = [checkpoint(of, piece, use_reentrant=False) for piece in pieces]
        return torch.cat(again)  # type: ignore[arg-type]

    def multiply(
        self, values: Float[Tensor, " pairs"], charges: Float[Tensor, " atoms"]
    ) -> Float[Tensor, " atoms"]:
        """Return the product of the symmetric matrix of ``values`` and the charges."""
        product, transposed = self.pattern.product, self.pattern.transposed_product
        return product(values, charges) + transposed(values, charges)

    def energies(
        self, values: Float[Tensor, " pairs"], charges: Float[Tensor, " atoms"], graphs: int
    ) -> Float[Tensor, " graphs"]:
        """Return half the quadratic form of the matrix of ``values`` for each structure."""
        first, second = charges[self.first.long()], charges[self.second.long()]
        return values.new_zeros(graphs).index_add(0, self.graph.long(), values * first * second)

    def diagonal(self, values: Float[Tensor, " pairs"]) -> Float[Tensor, " atoms"]:
        """Return the diagonal of the matrix of ``values``: an atom with its own images."""
        own = torch.where(self.first == self.second, 2 * values, 0.0)
        return values.new_zeros(self.atoms).index_add(0, self.first, own)

    @cached_property
    def pattern(self) -> SparsePattern:
        """The matrix of the pairs: first atoms are its rows, second ones its columns."""
        kind = index_type(self.first.shape[0], self.atoms)
        rows = torch.arange(self.atoms + 1, device=self.first.device, dtype=self.first.dtype)
        offsets = torch.searchsorted(self.first, rows).to(kind)
        return SparsePattern(offsets, self.second.to(kind), self.atoms)

    def keep(self, chosen: Tensor | slice) -> "Pairs":
        """Return the pairs for which ``chosen`` holds, or a slice of them."""
        return Pairs(
            self.first[chosen],
            self.second[chosen],
            self.graph[chosen],
            self.image[chosen],
            self.shifts,
            self.shift_graph,
            self.atoms,
        )


def pairs_within(
    system: ChargedSystem, cell: Float[Tensor, "graphs 3 3"], cutoff: Float[np.ndarray, " graphs"]
) -> Pairs:
    """Return the pairs of each structure that are closer than its cutoff, images included.

    Args:
        system: The structures.
        cell: Their cells, with a lattice vector also where a direction is open, Å.
        cutoff: (graphs,) Å.

    Raises:
        ValueError: If two atoms overlap, a position is not finite, or a cell has no volume.
    """
    columns: list[tuple[np.ndarray, ...]] = []
    images = 0
    number = np.int32 if system.atoms < 2**31 else np.int64
    starts = np.concatenate([[0], np.cumsum(_counts(system))])
    positions, cells, pbc = (x.detach().cpu().numpy() for x in (system.positions, cell, system.pbc))
    for graph, r_max in enumerate(cutoff):
        start, stop = starts[graph], starts[graph + 1]
        first, second, shift = pair_list(
            positions[start:stop], cells[graph], pbc[graph], float(r_max)
        )
        order = np.argsort(first, kind="stable")
        shifts, image = _distinct(shift[order])
        columns.append(
            (
                (first[order] + start).astype(number),
                (second[order] + start).astype(number),
                np.full(len(first), graph, dtype=number),
                (image + images).astype(number),
                shifts.astype(float),
                np.full(len(shifts), graph),
            )
        )
        images += len(shifts)
    device = system.positions.device
    tensors = [
        torch.as_tensor(np.concatenate(c), device=device) for c in zip(*columns, strict=True)
    ]
    first, second, graph, image, shifts, shift_graph = tensors
    pairs = Pairs(first, second, graph, image, shifts, shift_graph, system.atoms)
    with torch.no_grad():
        distances = pairs.values(lambda r, *_: r, replace(system, cell=cell))
    refuse_overlap(system, pairs, distances)
    return pairs


def all_pairs(system: ChargedSystem) -> Pairs:
    """Return all pairs within each structure, without images.

    Raises:
        ValueError: If two atoms overlap.
    """
    counts = torch.bincount(system.batch, minlength=system.graphs)
    atoms = torch.arange(system.atoms, device=system.batch.device)
    later = counts.cumsum(0)[system.batch] - atoms - 1
    first = torch.repeat_interleave(atoms, later)
    within = torch.arange(first.shape[0], device=atoms.device) - (later.cumsum(0) - later)[first]
    none = first.new_zeros(0)
    pairs = Pairs(
        first,
        first + 1 + within,
        system.batch[first],
        first,
        system.positions.new_zeros((0, 3)).double(),
        none,
        system.atoms,
    )
    refuse_overlap(system, pairs, pairs.distances(system.positions.detach(), system.cell.detach()))
    return pairs


def refuse_overlap(system: ChargedSystem, pairs: Pairs, distances: Float[Tensor, " pairs"]) -> None:
    """Refuse structures of which two atoms lie on each other.

    Raises:
        ValueError: Naming the structure and the two atoms.
    """
    bad = torch.nonzero(distances < OVERLAP)
    if bad.numel() == 0:
        return
    pair = int(bad[0])
    graph = int(pairs.graph[pair])
    start = int((system.batch < graph).sum())
    first, second = int(pairs.first[pair]) - start, int(pairs.second[pair]) - start
    raise StructureError(
        graph,
        f"atoms {first} and {second} are {float(distances[pair]):.1e} Å apart (counted from 0, "
        "images included); remove one of them or correct the cell",
    )


def _distinct(shifts: Int[np.ndarray, "pairs 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows and where each row is among them."""
    least = shifts.min(0, initial=0)
    span = shifts.max(0, initial=0) - least + 1
    code = np.ravel_multi_index(tuple((shifts - least).T), tuple(span))
    codes, image = np.unique(code, return_inverse=True)
    return np.stack(np.unravel_index(codes, tuple(span)), axis=1) + least, image


def _counts(system: ChargedSystem) -> np.ndarray:
    return torch.bincount(system.batch, minlength=system.graphs).cpu().numpy()

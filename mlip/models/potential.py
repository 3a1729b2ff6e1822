"""A potential: backbone, heads in listed order, terms; forces and stress by autograd, here only."""

from collections.abc import Collection, Mapping, Sequence

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from mlip.electrostatics.response import born_charges
from mlip.errors import UnsupportedElementError
from mlip.graph import AtomGraph, Geometry, Surroundings
from mlip.models.backbone import Backbone
from mlip.models.charge_head import ChargeHead
from mlip.models.charged import system_of_geometry
from mlip.models.energy_head import EnergyHead
from mlip.models.head import Head
from mlip.models.term import Term

DERIVATIVES = ("forces", "stress")
BORN = "born_effective_charges"


class Potential(nn.Module):
    """Energy of a structure, ``E = Σ_i (E0(Z_i) + heads + terms)``, and its derivatives.

    Args:
        elements: Symbols that the potential knows.
        backbone: Graph to features.
        heads: Features to outputs, in the order in which they run.
        terms: Energies without features.
    """

    energy_references: Tensor
    species: Tensor

    def __init__(
        self,
        elements: Sequence[str],
        backbone: Backbone,
        heads: Mapping[str, Head],
        terms: Mapping[str, Term] | None = None,
    ) -> None:
        super().__init__()
        self.elements = list(elements)
        self.backbone = backbone
        for name, head in heads.items():
            if taken := {"energy", *DERIVATIVES} & set(head.gives):
                raise ValueError(
                    f"the head {name} gives {', '.join(sorted(taken))}, which follow from the "
                    "energies of the atoms: give its output another name"
                )
        _require_order(heads)
        self.heads = nn.ModuleDict(heads)
        self.terms = nn.ModuleDict(terms or {})
        self.register_buffer("energy_references", torch.zeros(len(elements), dtype=torch.float64))
        species = torch.full((len(chemical_symbols),), -1, dtype=torch.int64)
        for index, symbol in enumerate(elements):
            species[atomic_numbers[symbol]] = index
        self.register_buffer("species", species, persistent=False)

    @property
    def r_max(self) -> float:
        """Cutoff of the neighbour list, Å."""
        return self.backbone.r_max

    @property
    def outputs(self) -> tuple[str, ...]:
        """What :meth:`forward` can return."""
        heads = [head for head in self.heads.values() if isinstance(head, Head)]
        given = [name for head in heads for name in head.gives]
        born = [BORN] if "charges" in given else []
        return tuple(dict.fromkeys(["energy", *DERIVATIVES, *given, *born]))

    @property
    def charge_head(self) -> ChargeHead | None:
        """The head that gives charges; None of a potential without."""
        heads = [head for head in self.heads.values() if isinstance(head, ChargeHead)]
        return heads[0] if heads else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What structures must state beside their atoms: ``total_charge``, ``spin``."""
        heads = [head for head in self.heads.values() if isinstance(head, Head)]
        return tuple(dict.fromkeys(name for head in heads for name in head.inputs))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def set_energy_references(self, references: Mapping[str, float]) -> None:
        """Set E0 of every element, eV.

        Raises:
            ValueError: If an element has no reference.
        """
        missing = [symbol for symbol in self.elements if symbol not in references]
        if missing:
            raise ValueError(f"no energy reference (E0) for {', '.join(missing)}: give one, in eV")
        values = [float(references[symbol]) for symbol in self.elements]
        self.energy_references.copy_(torch.tensor(values, dtype=torch.float64))

    def set_scale(self, scale: float) -> None:
        """Set the scale of the interaction energies of every energy head, eV."""
        for head in self.heads.values():
            if isinstance(head, EnergyHead):
                head.scale.fill_(scale)

    def to_precision(self, dtype: torch.dtype) -> "Potential":
        """Cast weights in place; energy references stay float64."""
        references = self.energy_references.clone()
        self.to(dtype)
        self.energy_references = references.to(self.device)
        return self

    def forward(
        self,
        graph: AtomGraph,
        outputs: Collection[str] = ("energy", "forces", "stress"),
        differentiable: bool = False,
        surroundings: Surroundings | None = None,
    ) -> dict[str, Tensor]:
        """Return the outputs for every structure of a batch.

        Args:
            graph: A batch of structures whose edges reach ``r_max``.
            outputs: Derivatives to compute beside the energy: any of ``forces``, ``stress``; and
                what auxiliary heads give, which run only if asked for, and
                ``born_effective_charges`` (atoms, 3, 3) e of potentials with charges.
            differentiable: Keep the graph, so that a loss on forces can be differentiated.
            surroundings: What acts from outside; None takes the total charges of the batch.

        Returns:
            ``energy`` (graphs,) eV, ``energies`` (atoms,) eV, what other heads give, and as asked
            ``forces`` (atoms, 3) eV/Å and ``stress`` (graphs, 3, 3) eV/Å³, positive in tension,
            NaN for a structure whose cell has no volume. Energies and derivatives are float64.

        Raises:
            UnsupportedElementError: If a structure holds an element the potential does not know.
            ValueError: If a structure does not state a total charge that the heads need.
        """
        wanted = [name for name in DERIVATIVES if name in outputs]
        born = BORN in outputs and BORN in self.outputs
        with torch.set_grad_enabled(bool(wanted) or born or differentiable):
            leaves = _Leaves(graph, wanted, born)
            geometry = self._geometry(graph, leaves, surroundings or _stated(graph))
            result = self._energies(geometry, outputs)
            polar = result.pop("polar_charges", result.get("charges"))
            if born:
                system = system_of_geometry(geometry, torch.ones_like(polar))  # type: ignore[arg-type]
                result[BORN] = born_charges(system, polar, create_graph=True)  # type: ignore[arg-type]
            references = self.energy_references[geometry.species]
            interaction = _sum_over(result["energies"].double(), geometry)
            if wanted:
                result |= leaves.derivatives(interaction, differentiable)
            result["energies"] = result["energies"].double() + references
            result["energy"] = interaction + _sum_over(references, geometry)
        if not differentiable:
            result = {name: value.detach() for name, value in result.items()}
        return result

    def without_auxiliary_heads(self) -> "Potential":
        """Return the potential as it is used: with the same weights, less what helped to train."""
        heads = {name: head for name, head in self.heads.items() if not _is_auxiliary(head)}
        if len(heads) == len(self.heads):
            return self
        terms = dict(self.terms.items())
        other = Potential(self.elements, self.backbone, heads, terms)  # type: ignore[arg-type]
        other.energy_references = self.energy_references
        other.species = self.species
        return other.train(self.training)

    def _energies(self, geometry: Geometry, wanted: Collection[str]) -> dict[str, Tensor]:
        features = self.backbone(geometry)
        outputs: dict[str, Tensor] = {}
        energies = geometry.edge_vectors.new_zeros(geometry.atoms)
        for head in self.heads.values():
            if _is_auxiliary(head) and not set(head.gives) & set(wanted):  # type: ignore[arg-type]
                continue
            new = head(features, geometry, outputs)
            energies = energies + new.pop("energies", 0.0)
            outputs |= new
        for term in self.terms.values():
            energies = energies + term(geometry, outputs)
        return outputs | {"energies": energies}

    def _geometry(
        self, graph: AtomGraph, leaves: "_Leaves", surroundings: Surroundings
    ) -> Geometry:
        species = self.species[graph.atomic_numbers]
        most = graph.to_dict().get("most")
        if most is None:  # a compiled step has asked this before
            self.require_known(graph.atomic_numbers)
        sender, receiver = graph.edge_index
        shift = torch.einsum("ei,eij->ej", graph.edge_shift, leaves.cell[leaves.batch[receiver]])
        vectors = (leaves.strained[receiver] - leaves.strained[sender] + shift).to(self.dtype)
        return Geometry(
            atomic_numbers=graph.atomic_numbers,
            species=species,
            positions=leaves.strained,
            cell=leaves.cell,
            pbc=graph.pbc,
            edge_index=graph.edge_index,
            edge_vectors=vectors,
            edge_lengths=torch.linalg.vector_norm(vectors, dim=-1),
            edge_pair=graph.edge_pair,
            batch=leaves.batch,
            graphs=graph.cell.shape[0],
            surroundings=surroundings,
            most=most,
        )

    def require_known(self, atomic_numbers: Tensor) -> None:
        """Refuse elements that the potential does not know.

        Raises:
            UnsupportedElementError: Naming them.
        """
        unknown = self.species[atomic_numbers] < 0
        if not unknown.any():
            return
        numbers = atomic_numbers[unknown].unique().tolist()
        symbols = ", ".join(chemical_symbols[number] for number in numbers)
        raise UnsupportedElementError(
            f"the potential does not know {symbols}; it was trained on {', '.join(self.elements)}"
        )


def _require_order(heads: Mapping[str, Head]) -> None:
    """Refuse a head that reads what no head before it gives."""
    given: set[str] = set()
    for name, head in heads.items():
        if missing := [one for one in head.reads if one not in given]:
            raise ValueError(
                f"the head {name} reads {', '.join(missing)}, which no head before it gives: list "
                "one before it, such as qeq_charge"
            )
        given |= set(head.gives)


def _stated(graph: AtomGraph) -> Surroundings:
    """Return what the structures of a batch state themselves."""
    return Surroundings(**{name: graph[name] for name in ("total_charge", "spin") if name in graph})


def _is_auxiliary(head: nn.Module) -> bool:
    return isinstance(head, Head) and head.auxiliary


class _Leaves:
    """Positions and a zero symmetric strain: what the energy is differentiated by.

    The strain deforms positions and cell together (Knuth et al., CPC 190, 33, 2015), so that
    the virial stress is ``dE/dε / V``.
    """

    def __init__(self, graph: AtomGraph, wanted: Sequence[str], moving: bool = False) -> None:
        self.wanted = wanted
        batch = graph.batch
        self.batch = torch.zeros_like(graph.atomic_numbers) if batch is None else batch
        self.positions = graph.positions.detach().requires_grad_(moving or bool(wanted))
        self.strain = torch.zeros_like(graph.cell).requires_grad_("stress" in wanted)
        self.volume = torch.linalg.det(graph.cell).abs()
        self.strained, self.cell = self.positions, graph.cell
        if "stress" in wanted:
            symmetric = 0.5 * (self.strain + self.strain.transpose(-1, -2))
            self.strained = self.positions + torch.einsum(
                "ai,aij->aj", self.positions, symmetric[self.batch]
            )
            self.cell = graph.cell + graph.cell @ symmetric

    def derivatives(self, energy: Tensor, differentiable: bool) -> dict[str, Tensor]:
        """Return the wanted derivatives of the sum of ``energy`` (graphs,)."""
        leaves = {"forces": self.positions, "stress": self.strain}
        if not energy.requires_grad:  # no atom has a neighbour
            return {name: self._finish(name, None) for name in self.wanted}
        gradients = torch.autograd.grad(
            energy.sum(),
            [leaves[name] for name in self.wanted],
            create_graph=differentiable,
            allow_unused=True,
        )
        return {
            name: self._finish(name, gradient)
            for name, gradient in zip(self.wanted, gradients, strict=True)
        }

    def _finish(self, name: str, gradient: Tensor | None) -> Tensor:
        if name == "forces":
            return torch.zeros_like(self.positions) if gradient is None else -gradient
        if gradient is None:
            gradient = torch.zeros_like(self.strain)
        # Dividing by NaN instead would poison the gradients of the whole batch.
        known = (self.volume > 0)[:, None, None]
        volume = torch.where(known, self.volume[:, None, None], 1.0)
        return torch.where(known, gradient / volume, torch.nan)


def _sum_over(values: Tensor, geometry: Geometry) -> Tensor:
    return values.new_zeros(geometry.graphs).index_add(0, geometry.batch, values)

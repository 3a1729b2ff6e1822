"""A step compiled as one graph: energy, forces, stress, loss and gradients, batches of any size."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from mlip import runtime
from mlip.graph import AtomGraph
from mlip.keys import FIELDS
from mlip.models.potential import Potential
from mlip.training import ranks
from mlip.training.accelerate import Reference
from mlip.training.loss import LABEL_OF
from mlip.training.step import Goal, Step, gradients

_HINTS = {"atom": 320, "pair": 8192, "graph": 8, "most": 64}
"""Sizes that the code is tuned for; it holds for all. They must not be those of the batch that
comes first, which is another one when a training is resumed."""
_INPUTS = ("positions", "atomic_numbers", "cell", "pbc", "edge_index", "edge_shift", "edge_pair",
           "batch", "ptr")  # fmt: skip

Compiler = Callable[[torch.fx.GraphModule, Sequence[Any]], Callable[..., Sequence[Tensor]]]


class CompiledStep:
    """Drop-in for :func:`mlip.training.step.gradients`, compiled by PyTorch's inductor.

    A graph is traced for each set of properties with a weight. Structures, atoms, pairs of edges
    and neighbours are symbols in it, and the weights of the loss are inputs: no change of them
    compiles again, and nothing is padded. On its first batch each graph is held against the
    uncompiled step. What the inductor made is kept in the user's cache.

    Args:
        compiler: Graph and example inputs -> function.
    """

    def __init__(self, compiler: Compiler | None = None) -> None:
        self._compiler = compiler or _inductor
        self._graphs: dict[tuple[str, ...], _Graph] = {}

    def __call__(self, potential: Potential, goal: Goal, batch: AtomGraph) -> Step:
        """Return the loss of a batch and its gradients.

        Raises:
            ValueError: If the model cannot be traced, or its compiled step differs.
            UnsupportedElementError: If a structure holds an element the potential does not know.
        """
        potential.require_known(batch.atomic_numbers)
        names = tuple(goal.weights)
        if not batch.edge_index.shape[1]:  # no shape may be zero
            return gradients(potential, goal, batch)
        if names not in self._graphs:
            self._graphs[names] = self._made(potential, goal, batch)
        return self._graphs[names](potential, goal, batch)

    def _made(self, potential: Potential, goal: Goal, batch: AtomGraph) -> "_Graph":
        start = time.perf_counter()
        told = ", ".join(goal.weights)
        reference = Reference(potential, goal, batch)
        _tell(f"compiling the step for {told}: minutes, or seconds where it is in the cache")
        graph = _Graph(potential, goal, batch, self._compiler)
        step = graph(potential, goal, batch)
        seconds = time.perf_counter() - start
        loss, gradient = reference.check("compile", step)
        _tell(
            f"compiled in {seconds:.0f} s; equal to the uncompiled step to {loss:.0e} of the loss "
            f"and {gradient:.0e} of the gradient"
        )
        return graph


class _Graph:
    """One compiled graph.

    Args:
        potential: The potential.
        goal: Properties with a weight.
        batch: A batch, of which only the types of its fields matter.
        compiler: As of :class:`CompiledStep`.
    """

    def __init__(
        self, potential: Potential, goal: Goal, batch: AtomGraph, compiler: Compiler
    ) -> None:
        labels = [LABEL_OF.get(name, name) for name in goal.weights]
        self.fields = list(dict.fromkeys([*_INPUTS, *labels]))
        self._present: list[bool] = []  # which weights the loss depends on
        shapes = ShapeEnv(duck_shape=False)  # equal sizes of one batch are not equal in the next
        mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
        try:
            inputs = self._fakes(mode, self._inputs(potential, goal, batch))
            with mode:
                trace = make_fx(self._traced(potential, goal), _allow_non_fake_inputs=True)
                graph = _free_of_strides(trace(*inputs))
        except Exception as error:  # whatever an operation raises whose shape follows from values
            raise ValueError(_untraceable(potential, str(error))) from error
        if shapes.guards:
            raise ValueError(_untraceable(potential, f"it fixes {shapes.guards[0].expr}"))
        self._run = compiler(graph, inputs)

    def __call__(self, potential: Potential, goal: Goal, batch: AtomGraph) -> Step:
        """Return what the compiled step gives."""
        with torch.no_grad():
            found = list(self._run(*self._inputs(potential, goal, batch)))
        value, parts = found[0], found[1 : 1 + len(goal.weights)]
        rest = iter(found[1 + len(goal.weights) :])
        return Step(
            value,
            dict(zip(goal.weights, parts, strict=True)),
            [next(rest) if present else None for present in self._present],
        )

    def _inputs(self, potential: Potential, goal: Goal, batch: AtomGraph) -> list[Tensor]:
        """Return weights, buffers, numbers of the goal, fields, and the neighbours as a shape."""
        tensors = [tensor.detach() for tensor in _state(potential).values()]
        weights = goal.total.new_tensor(list(goal.weights.values()))
        count = torch.bincount(batch.edge_index[1], minlength=1)
        fields = [batch[name].contiguous() for name in self.fields]
        most = batch.positions.new_empty(int(count.max()))
        return [*tensors, weights, goal.total, *fields, most]

    def _fakes(self, mode: FakeTensorMode, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the inputs with symbols for what differs between batches."""
        context = StatelessSymbolicContext([DimDynamic.DYNAMIC])
        sizes: dict[str, Any] = {
            name: mode.from_tensor(inputs[-1].new_empty(hint), symbolic_context=context)
            for name, hint in _HINTS.items()
        }
        most = sizes.pop("most")
        sizes = {name: tensor.shape[0] for name, tensor in sizes.items()}
        first = len(inputs) - len(self.fields) - 1
        fakes: list[Tensor] = [
            mode.from_tensor(tensor, static_shapes=True) for tensor in inputs[:first]
        ]
        with mode:
            for name, tensor in zip(self.fields, inputs[first:-1], strict=True):
                shape = _symbolic(name, tensor.shape, sizes)
                fakes.append(torch.empty(shape, dtype=tensor.dtype, device=tensor.device))
        return [*fakes, most]

    def _traced(self, potential: Potential, goal: Goal) -> Callable[..., list[Tensor]]:
        state, names = _state(potential), list(goal.weights)
        module = _Step(potential)

        def step(*inputs: Tensor) -> list[Tensor]:
            tensors = {
                f"potential.{name}": tensor.detach().requires_grad_(old.requires_grad)
                for (name, old), tensor in zip(state.items(), inputs, strict=False)
            }
            weights, total, *fields, most = inputs[len(state) :]
            graph = AtomGraph(
                **dict(zip(self.fields, fields, strict=True)), num_nodes=fields[0].shape[0]
            )
            graph.most = most.shape[0]
            symbolic = Goal(goal.loss, dict(zip(names, weights, strict=True)), total)
            found: Step = torch.func.functional_call(module, tensors, (symbolic, graph))
            self._present = [gradient is not None for gradient in found.gradients]
            present = [gradient for gradient in found.gradients if gradient is not None]
            return [found.loss, *found.parts.values(), *present]

        return step


class _Step(nn.Module):
    """A step as a module, so that its weights can be replaced by symbols."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, goal: Goal, graph: AtomGraph) -> Step:
        return gradients(self.potential, goal, graph)


def _state(potential: Potential) -> dict[str, Tensor]:
    return dict(potential.named_parameters()) | dict(potential.named_buffers())


def _free_of_strides(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Let views copy where they must: the inductor lays tensors out otherwise than the trace."""
    for node in graph.graph.nodes:
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default
    graph.recompile()
    return graph


def _symbolic(name: str, shape: torch.Size, sizes: dict[str, Any]) -> list[Any]:
    if name == "edge_index":
        return [2, 2 * sizes["pair"]]
    if name.startswith("edge"):
        return [2 * sizes["pair"], *shape[1:]]
    if name == "ptr":
        return [sizes["graph"] + 1]
    level = "atom" if name == "batch" else FIELDS[name].level
    return [sizes[level], *shape[1:]]


def _inductor(
    graph: torch.fx.GraphModule, inputs: Sequence[Any]
) -> Callable[..., Sequence[Tensor]]:
    """Compile a graph with symbols, or take it from the cache."""
    runtime.keep_compiled()
    from torch._inductor import standalone_compile

    return standalone_compile(graph, list(inputs), dynamic_shapes="from_graph")  # type: ignore[return-value]


def _untraceable(potential: Potential, told: str) -> str:
    kind = type(potential.backbone).__name__
    reason = (told.strip().splitlines() or ["unknown"])[0]
    return (
        f"accelerate is compile, but a step of {kind} cannot be traced with symbols for its sizes "
        f"({reason}): train with accelerate=null, or take mace, native, nequip or allegro"
    )


def _tell(text: str) -> None:
    if ranks.rank() == 0:
        print(text)  # noqa: T201

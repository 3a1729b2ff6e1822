"""The compiled step: equal to the uncompiled one for batches of any size, or refused."""

import pytest
import torch
from torch.fx import GraphModule

from mlip import config as configs
from mlip.data.card import load_frames
from mlip.data.loader import to_graphs
from mlip.graph import collate
from mlip.models.build import build
from mlip.runtime import plain_e3nn
from mlip.training.compiled import CompiledStep
from mlip.training.loss import Loss, PropertyLoss, StratifiedHuber
from mlip.training.metrics import label_counts
from mlip.training.step import Goal, gradients

LABELS = ("energy", "forces", "stress")


@pytest.fixture(scope="module")
def graphs():
    return to_graphs(load_frames("mlearn_li", "train")[::24], 4.0, LABELS)


def potential(backbone="native", **sizes):
    parts = {"native": "native.Native", "mace": "mace.Mace", "chgnet": "chgnet.Chgnet"}
    torch.manual_seed(3)
    with plain_e3nn():
        found = build({
            "elements": ["Li", "O"],
            "precision": "float64",
            "backbone": {"_target_": f"mlip.models.backbones.{parts[backbone]}", "r_max": 4.0,
                         "average_neighbors": 12.0, **sizes},
            "heads": {"energy": {"_target_": "mlip.models.heads.energy.Energy"}},
            "terms": {"zbl": {"_target_": "mlip.models.terms.zbl.ZBL"}},
        })  # fmt: skip
    found.set_scale(3.0)
    return found


TINY = {
    "native": {"channels": 4, "max_l": 1, "layers": 1, "radial_functions": 3, "hidden": 4},
    "mace": {"channels": 2, "max_l": 1, "max_ell": 1, "correlation": 3, "layers": 2,
             "radial_functions": 3, "radial_network": [4]},
}  # fmt: skip


def interpreted(graph: GraphModule, inputs):
    """Run the traced graph operation by operation: what the inductor is given, without it."""
    return graph


def goal(batch, **weights):
    weights = weights or {"energy": 5.0, "forces": 10.0, "stress": 100.0}
    terms = {name: PropertyLoss(weight, "huber", 0.02) for name, weight in weights.items()}
    if "forces" in terms:
        terms["forces"] = StratifiedHuber(weights["forces"], {0.0: 0.02, 0.5: 0.01})
    loss = Loss(terms)
    return Goal(loss, weights, label_counts(weights, batch))


def assert_equal(step, other, tolerance=1e-10):
    assert float(step.loss) == pytest.approx(float(other.loss), rel=tolerance)
    assert step.parts.keys() == other.parts.keys()
    for new, old in zip(step.gradients, other.gradients, strict=True):
        assert (new is None) == (old is None)
        if new is not None:
            torch.testing.assert_close(new, old, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backbone", ["native", pytest.param("mace", marks=pytest.mark.mace)])
def test_one_trace_holds_for_every_batch(backbone, graphs):
    model, step = potential(backbone, **TINY[backbone]), CompiledStep(interpreted)
    for chosen in ([0, 1, 2], [3], [9, 8, 7, 6, 5], [0] * 8):
        batch = collate([graphs[i] for i in chosen])
        assert_equal(step(model, goal(batch), batch), gradients(model, goal(batch), batch))
    assert len(step._graphs) == 1


def test_weights_and_labels_do_not_trace_again(graphs):
    model, step = potential(**TINY["native"]), CompiledStep(interpreted)
    batch = collate(graphs[:3])
    for weights in ({"energy": 1.0, "forces": 2.0}, {"energy": 7.0, "forces": 0.3}):
        asked = goal(batch, **weights)
        assert_equal(step(model, asked, batch), gradients(model, asked, batch))
        batch.energy = batch.energy.clone()
        batch.energy[1] = torch.nan
    batch.energy[:] = torch.nan
    assert_equal(step(model, goal(batch, energy=1.0, forces=1.0), batch),
                 gradients(model, goal(batch, energy=1.0, forces=1.0), batch))  # fmt: skip
    assert len(step._graphs) == 1
    step(model, goal(batch, forces=1.0), batch)
    assert len(step._graphs) == 2  # without stress and energy there is less to compute


def test_weights_of_the_model_are_inputs(graphs):
    model, step = potential(**TINY["native"]), CompiledStep(interpreted)
    batch = collate(graphs[:2])
    step(model, goal(batch), batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert_equal(step(model, goal(batch), batch), gradients(model, goal(batch), batch))


@pytest.mark.slow
def test_the_inductor_gives_the_same(graphs):
    model, step = potential(**TINY["native"]), CompiledStep()
    for chosen in (graphs[:3], graphs[4:5], graphs[5:9]):
        batch = collate(chosen)
        assert_equal(step(model, goal(batch), batch), gradients(model, goal(batch), batch), 1e-9)


def test_a_compiler_that_changes_numbers_is_refused(graphs):
    """Matrix products rounded to 8 bits, as a compiler that gains speed that way."""

    def careless(graph, inputs):
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.mm.default:
                with graph.graph.inserting_after(node):
                    low = graph.graph.call_function(
                        torch.ops.aten._to_copy.default, (node,), {"dtype": torch.bfloat16}
                    )
                node.replace_all_uses_with(
                    low, delete_user_cb=lambda user, low=low: user is not low
                )
                with graph.graph.inserting_after(low):
                    back = graph.graph.call_function(
                        torch.ops.aten._to_copy.default, (low,), {"dtype": torch.float64}
                    )
                low.replace_all_uses_with(back, delete_user_cb=lambda user, b=back: user is not b)
        graph.recompile()
        return graph

    batch = collate(graphs[:2])
    with pytest.raises(ValueError, match=r"differs from the plain.*accelerate=null"):
        CompiledStep(careless)(potential(**TINY["native"]), goal(batch), batch)


def test_single_precision_is_held_to_its_own_rounding(graphs):
    """Labels that the potential gives almost exactly: the loss is rounding, and no mismatch."""
    model, step = potential(**TINY["native"]), CompiledStep(interpreted)
    batch = collate(graphs[:3])
    for name, value in model(batch).items():
        if name in LABELS:
            batch[name] = value + 1e-5
    step(model.to_precision(torch.float32), goal(batch), batch)


def test_an_unknown_element_is_refused_by_name(graphs):
    from mlip.errors import UnsupportedElementError

    batch = collate(graphs[:1])
    batch.atomic_numbers = torch.full_like(batch.atomic_numbers, 11)
    with pytest.raises(UnsupportedElementError, match="Na"):
        CompiledStep(interpreted)(potential(**TINY["native"]), goal(batch), batch)


def test_a_model_that_cannot_be_traced_is_refused(graphs):
    from mlip.models.potential import Potential

    class Reads(torch.nn.Module):
        def forward(self, geometry, outputs):
            lengths = geometry.edge_lengths
            return lengths.new_zeros(geometry.atoms) * (2 if lengths.min() > 1 else 3)

    model = potential(**TINY["native"])
    model = Potential(model.elements, model.backbone, dict(model.heads), {"odd": Reads()})
    batch = collate(graphs[:2])
    with pytest.raises(ValueError, match=r"Native cannot be traced.*accelerate=null"):
        CompiledStep(interpreted)(model, goal(batch), batch)


def test_the_option_is_checked():
    from mlip.training.check import check

    with pytest.raises(ValueError, match="accelerate is 'fast': give compile or cuequivariance or"):
        check(configs.compose("train", ["accelerate=fast"]))


@pytest.mark.mace
@pytest.mark.parametrize("name", ["cuequivariance", "openequivariance"])
def test_kernels_that_are_not_there_are_refused(name, monkeypatch):
    from mlip.training import accelerate
    from mlip.training.check import check

    asked = [f"accelerate={name}", "trainer=cpu"]
    with pytest.raises(ValueError, match="the backbone mace only"):
        check(configs.compose("train", [*asked, "backbone@model.backbone=native"]))
    monkeypatch.setattr(accelerate, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=f"not installed: pip install {name}"):
        check(configs.compose("train", asked))
    monkeypatch.setattr(accelerate, "find_spec", lambda module: object())
    with pytest.raises(ValueError, match="need a CUDA GPU"):
        check(configs.compose("train", asked))


@pytest.mark.mace
def test_cuequivariance_gives_the_same(graphs):
    """On the CPU, where its plain version runs; the state of the potential stays as it was."""
    pytest.importorskip("cuequivariance_torch")
    from mlip.training.accelerate import KernelStep

    model, step, batch = potential("mace", **TINY["mace"]), KernelStep("cuequivariance"), None
    names = set(model.state_dict())
    for chosen in (graphs[:2], graphs[2:5]):
        batch = collate(chosen)
        plain = gradients(potential("mace", **TINY["mace"]), goal(batch), batch)
        assert_equal(step(model, goal(batch), batch), plain, 1e-9)
    assert set(model.state_dict()) <= names


@pytest.mark.mace
def test_kernels_that_differ_are_refused(graphs, monkeypatch):
    """A tensor product whose paths are weighted otherwise, as between versions of a package."""
    from mlip.models import mace_kernels
    from mlip.training.accelerate import KernelStep

    def wrong(backbone, name):
        backbone.interactions[1].conv_tp.table0.mul_(1.001)

    monkeypatch.setattr(mace_kernels, "use_kernels", wrong)
    batch = collate(graphs[:2])
    with pytest.raises(ValueError, match=r"cuequivariance, but its step differs.*allowed"):
        KernelStep("cuequivariance")(potential("mace", **TINY["mace"]), goal(batch), batch)

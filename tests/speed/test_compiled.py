"""A training step on weights of mace-torch, plain and compiled, against that of mace_run_train."""

import statistics
import time

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlip.data.card import load_frames
from mlip.graph import collate, from_atoms
from mlip.models.mace_foundation import load_mace
from mlip.runtime import import_mace, plain_e3nn
from mlip.training.compiled import CompiledStep
from mlip.training.loss import Loss, PropertyLoss
from mlip.training.metrics import label_counts
from mlip.training.step import Goal, gradients

pytestmark = [pytest.mark.speed, pytest.mark.mace]
R_MAX, FRAMES, REPEATS, CLIP, DELTA = 5.0, 10, 5, 10.0, 0.01
WEIGHTS = {"energy": 10.0, "forces": 10.0, "stress": 100.0}
SIZES = {"64x0e": 1.8, "128x0e+128x1o": 2.5}
"""Hidden features -> target: times the structures a second of mace_run_train."""
DATA = ("mlearn_li", "mptrj")


def frames_of(data):
    frames = load_frames(data, "train")
    return [f for f in frames if data == "mlearn_li" or 24 <= len(f.atoms) <= 32][:FRAMES]


def peer_model(hidden, numbers, neighbors):
    modules = import_mace()
    from e3nn import o3

    torch.manual_seed(1)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        return modules.ScaleShiftMACE(
            atomic_inter_scale=0.7, atomic_inter_shift=0.0, r_max=R_MAX, num_bessel=8,
            num_polynomial_cutoff=5, max_ell=3, num_interactions=2, num_elements=len(numbers),
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            hidden_irreps=o3.Irreps(hidden), MLP_irreps=o3.Irreps("16x0e"),
            avg_num_neighbors=neighbors, atomic_numbers=numbers,
            atomic_energies=np.zeros(len(numbers)), correlation=3,
            gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64], use_reduced_cg=True,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(default)


def their_step(model, frames, numbers):
    """Return the step of mace_run_train: its batch, loss, optimiser, clipping and average."""
    from mace import data, tools
    from mace.modules.loss import WeightedHuberEnergyForcesStressLoss
    from mace.tools import torch_geometric
    from mace.tools.train import take_step
    from torch_ema import ExponentialMovingAverage

    table = tools.AtomicNumberTable(numbers)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    graphs = [
        data.AtomicData.from_config(
            data.Configuration(
                atomic_numbers=frame.atoms.numbers,
                positions=frame.atoms.positions,
                properties={name: np.asarray(frame.labels[name]) for name in WEIGHTS}
                | {"energy": float(frame.labels["energy"])},
                property_weights=dict.fromkeys(WEIGHTS, 1.0),
                cell=frame.atoms.cell.array,
                pbc=(True, True, True),
            ),
            z_table=table,
            cutoff=R_MAX,
        )
        for frame in frames
    ]
    torch.set_default_dtype(default)
    batch = next(iter(torch_geometric.dataloader.DataLoader(graphs, batch_size=len(graphs))))
    names = {f"{name}_weight": weight for name, weight in WEIGHTS.items()}
    loss = WeightedHuberEnergyForcesStressLoss(**names, huber_delta=DELTA)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, amsgrad=True)
    average = ExponentialMovingAverage(model.parameters(), decay=0.99)
    asked = {"forces": True, "virials": False, "stress": True}

    def step():
        return float(
            take_step(model, loss, batch, optimizer, average, asked, CLIP, torch.device("cpu"))[0]
        )

    return step


def goal(batch):
    """Return the loss, that of the peer, and the labels of a batch."""
    loss = Loss({name: PropertyLoss(w, "huber", DELTA) for name, w in WEIGHTS.items()})
    return Goal(loss, WEIGHTS, label_counts(WEIGHTS, batch))


def our_step(potential, batch, compute):
    """Return the same of ours: what the training module does with a batch."""
    optimizer = torch.optim.AdamW(potential.parameters(), lr=1e-9, amsgrad=True)
    average = AveragedModel(potential, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    trained = [parameter for parameter in potential.parameters() if parameter.requires_grad]

    def step(batch=batch):
        found = compute(potential, goal(batch), batch)
        for parameter, gradient in zip(trained, found.gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        average.update_parameters(potential)
        return float(found.loss)

    return step


def ratio(ours, theirs):
    """Return the median over turns, in seconds of the processor: the machine has other work."""
    ratios = []
    for _ in range(REPEATS):
        times = []
        for function in (ours, theirs):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        ratios.append(times[1] / times[0])
    print(f"\nratios {[round(one, 2) for one in ratios]}, last {times[0]:.3f} and {times[1]:.3f} s")
    return statistics.median(ratios)


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("kind", ["plain", "compiled"])
def test_step(kind, data, hidden, tmp_path, record):
    """Equal weights, batch, precision and threads; the losses have to agree as well."""
    torch.set_num_threads(1)
    frames = frames_of(data)
    numbers = sorted({int(number) for frame in frames for number in frame.atoms.numbers})
    batch = collate([from_atoms(f.atoms, R_MAX, f.labels, tuple(WEIGHTS)) for f in frames])
    theirs = peer_model(hidden, numbers, batch.edge_index.shape[1] / len(batch.positions))
    torch.save(theirs, tmp_path / "peer.model")
    compiled = CompiledStep() if kind == "compiled" else gradients
    with plain_e3nn():
        potential = load_mace(tmp_path / "peer.model")[0].train()
    steps = our_step(potential, batch, compiled), their_step(theirs, frames, numbers)
    plain = gradients(potential, goal(batch), batch)
    ours, other = (step() for step in steps)
    print(f"\nloss {ours:.9g}, uncompiled {float(plain.loss):.9g}, of the peer {other:.9g}")
    assert ours == pytest.approx(float(plain.loss), rel=1e-6)
    record(
        f"training step, MACE {hidden} on {data}, {kind}",
        ratio(*steps),
        unit="x",
        target=SIZES[hidden],
        better="higher",
        peer="mace_run_train 0.3.16, its step on the same weights and batch",
        threads=1,
    )

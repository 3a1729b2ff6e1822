"""Why FSDP is refused: with sharded layers the loss of forces has no gradient."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from mlip.config import compose
from mlip.training.check import check

WORKER = """
import sys, torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

distributed.init_process_group("gloo")
torch.manual_seed(0)


class Potential(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, positions):
        positions = positions.clone().requires_grad_()
        energy = self.layers(positions).sum()
        return torch.autograd.grad(energy, positions, create_graph=True)[0]


potential, mesh = Potential(), init_device_mesh("cpu", (2,))
if sys.argv[1] == "layers":
    for layer in (potential.layers[0], potential.layers[2]):
        fully_shard(layer, mesh=mesh)
fully_shard(potential, mesh=mesh)
potential(torch.ones(4, 3)).square().sum().backward()
print("gradient", float(potential.layers[2].weight.grad.full_tensor().abs().sum()))
"""


def test_fsdp_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"trainer\.strategy=ddp"):
        check(compose("train", ["trainer.strategy=fsdp"]))


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", ["layers", "whole"])
def test_torch_cannot_yet(wrapped, tmp_path):
    """When the first case no longer fails, FSDP can be offered; the second shards no layer."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), wrapped],
            cwd=Path(__file__).parents[2],
            env=os.environ | meeting | {"WORLD_SIZE": "2", "RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in running:
        out, err = process.communicate(timeout=120)
        if wrapped == "whole":
            assert "gradient" in out, err
        else:
            assert "storage of size 0" in err

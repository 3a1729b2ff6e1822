"""The mace backbone equals mace-torch, from scratch and from a foundation file."""

import warnings
import zipfile

import numpy as np
import pytest
import torch

from mlip.calculators.checkpoint import MlipCalculator
from mlip.models.backbones import mace as backbone_module
from mlip.models.backbones.mace import Mace
from mlip.models.heads.energy import Energy
from mlip.models.mace_foundation import load_mace
from mlip.models.potential import Potential
from mlip.models.symmetric_product import SymmetricProduct
from mlip.runtime import import_mace
from mlip.testing.contract import example, predict

pytestmark = pytest.mark.mace
ENERGY, FORCE, STRESS = 1e-6, 1e-6, 1e-6  # eV, eV/Å, eV/Å³


def mace_model(
    hidden="8x0e",
    first="RealAgnosticInteractionBlock",
    later="RealAgnosticResidualInteractionBlock",
    repulsion=False,
    transform="None",
    heads=None,
):
    modules = import_mace()
    from e3nn import o3

    torch.manual_seed(1)
    many = len(heads or [0])
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return modules.ScaleShiftMACE(
                atomic_inter_scale=[0.7, 0.3][:many] if heads else 0.7,
                atomic_inter_shift=[0.1, -0.2][:many] if heads else 0.1,
                r_max=4.0,
                num_bessel=6,
                num_polynomial_cutoff=5,
                max_ell=2,
                interaction_cls=modules.interaction_classes[later],
                interaction_cls_first=modules.interaction_classes[first],
                num_interactions=2,
                num_elements=2,
                hidden_irreps=o3.Irreps(hidden),
                MLP_irreps=o3.Irreps("16x0e"),
                avg_num_neighbors=11.0,
                atomic_numbers=[3, 8],
                atomic_energies=np.array([[-1.0, -5.0]] * many)
                if heads
                else np.array([-1.0, -5.0]),
                correlation=3,
                gate=torch.nn.functional.silu,
                pair_repulsion=repulsion,
                distance_transform=transform,
                heads=heads,
                radial_MLP=[16, 16],
            )
    finally:
        torch.set_default_dtype(default)


VARIANTS = {
    "scalars": {},
    "vectors": {"hidden": "8x0e+8x1o"},
    "repulsion-agnesi": {"hidden": "8x0e+8x1o", "repulsion": True, "transform": "Agnesi"},
    "residual": {"first": "RealAgnosticResidualInteractionBlock"},
    "density": {
        "first": "RealAgnosticDensityInteractionBlock",
        "later": "RealAgnosticDensityResidualInteractionBlock",
    },
    "heads": {"heads": ["pbe", "r2scan"], "repulsion": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_the_calculator_of_mace(variant, tmp_path):
    options = VARIANTS[variant]
    path = tmp_path / "foundation.model"
    torch.save(mace_model(**options), path)
    head = options.get("heads", [None])[-1]
    atoms = example(["Li", "O"])
    atoms.positions[1] = atoms.positions[0] + [1.2, 0.1, 0.0]  # close enough for the repulsion
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace.calculators import MACECalculator

        theirs = MACECalculator(
            str(path), device="cpu", default_dtype="float64", **({"head": head} if head else {})
        )
    ours = MlipCalculator(path, device="cpu", head=head)
    expected, got = atoms.copy(), atoms.copy()
    expected.calc, got.calc = theirs, ours
    assert abs(expected.get_forces()).max() > 1e-2
    assert got.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=ENERGY)
    np.testing.assert_allclose(got.get_forces(), expected.get_forces(), atol=FORCE)
    np.testing.assert_allclose(got.get_stress(), expected.get_stress(), atol=STRESS)


@pytest.mark.parametrize(("max_l", "correlation"), [(0, 1), (0, 2), (1, 3)])
def test_fast_products_equal_the_general_ones(max_l, correlation, monkeypatch):
    atoms = example(["Li", "O"])
    results = []
    for fast in (True, False):
        if not fast:
            monkeypatch.setattr(backbone_module, "_is_plain", lambda block: False)
            monkeypatch.setattr(SymmetricProduct, "serves", lambda product: False)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        backbone = Mace(
            ["Li", "O"],
            r_max=4.0,
            channels=8,
            max_l=max_l,
            max_ell=3,
            correlation=correlation,
            layers=2,
            average_neighbors=9.0,
        )
        head = Energy(backbone.channels)
        torch.set_default_dtype(default)
        if fast:
            weights = backbone.state_dict(), head.state_dict()
        backbone.load_state_dict(weights[0], strict=False)
        head.load_state_dict(weights[1])
        results.append(predict(Potential(["Li", "O"], backbone, {"energy": head}).double(), atoms))
    for name in ("energies", "forces", "stress"):
        np.testing.assert_allclose(results[0][name], results[1][name], atol=1e-12)


def test_importing_mace_leaves_safe_loading_on(monkeypatch):
    import os

    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    import_mace()
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ


class Bomb:
    def __reduce__(self):
        import pathlib

        return pathlib.Path.touch, (pathlib.Path("exploded"),)


def test_a_hostile_model_file_is_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Bomb()}, "bomb.model")
    with pytest.raises(ValueError, match="MACE"):
        load_mace("bomb.model")
    assert not (tmp_path / "exploded").exists()


class Script(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused_unread(tmp_path):
    path = tmp_path / "script.model"
    torch.jit.script(Script()).save(path)
    with pytest.raises(ValueError, match="TorchScript"):
        load_mace(path)


def test_a_truncated_model_file_is_refused(tmp_path):
    path = tmp_path / "cut.model"
    torch.save(mace_model(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated"):
        load_mace(path)


def test_a_missing_head_is_named(tmp_path):
    path = tmp_path / "heads.model"
    torch.save(mace_model(heads=["pbe", "r2scan"]), path)
    with pytest.raises(ValueError, match="pbe, r2scan"):
        load_mace(path)
    with pytest.raises(ValueError, match="did you mean 'r2scan'"):
        load_mace(path, head="r2scn")
    assert zipfile.is_zipfile(path)

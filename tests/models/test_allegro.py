"""The allegro backbone: packaged models equal to their own calculator, and strictly local."""

import numpy as np
import pytest
import torch
from ase import Atoms

from mlip.graph import from_atoms
from mlip.models.backbones.allegro import Allegro
from mlip.models.loading import load, load_with_config
from tests.models.nequip_package import check_equal, package

pytestmark = pytest.mark.allegro
MODEL = {
    "_target_": "allegro.model.AllegroModel",
    "model_dtype": "float32",
    "l_max": 2,
    "num_layers": 2,
    "num_scalar_features": 12,
    "num_tensor_features": 4,
    "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 6},
    "allegro_mlp_hidden_layers_width": 16,
    "readout_mlp_hidden_layers_depth": 1,
    "readout_mlp_hidden_layers_width": 8,
}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    return package(tmp_path_factory.mktemp("allegro"), MODEL)


def test_a_packaged_model_is_equal_to_its_own_calculator(packaged):
    check_equal(packaged, energy=1e-5, derivative=1e-6)
    _, config = load_with_config(packaged)
    assert config["backbone"]["channels"] == 8
    assert config["backbone"]["radial_functions"] == 6


def test_an_atom_feels_nothing_beyond_the_cutoff(packaged):
    """Two bonds away, which messages would reach, the energy of an atom does not change."""
    potential = load(packaged).to_precision(torch.float64)
    energies = []
    for far in (7.0, 7.3):
        chain = Atoms("Mg3", positions=[[0, 0, 0], [3.5, 0, 0], [far, 0, 0]])
        energies.append(float(potential(from_atoms(chain, potential.r_max))["energies"][0]))
    np.testing.assert_allclose(energies[0], energies[1], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"read_out_depth": 0}, "give at least 1"), ({"average_neighbors": None}, "is not set")],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Allegro(["Li"], **{"average_neighbors": 9.0, **options})

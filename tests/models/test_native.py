"""The native backbone: sums and products against their definitions, in both lines of e3nn."""

import pytest
import torch
from torch import nn

from mlip.graph import collate, from_atoms
from mlip.models.backbones.native import Native
from mlip.models.build import build
from mlip.models.harmonics import Harmonics
from mlip.models.slots import NeighborSlots
from mlip.models.sphere import SphereProducts
from mlip.runtime import default_precision, import_e3nn
from mlip.testing import contract

pytestmark = pytest.mark.native
SIZES = {"r_max": 4.0, "channels": 24, "max_l": 2, "layers": 2, "average_neighbors": 10.0}
EXACT = 1e-12


@pytest.fixture(autouse=True)
def double():
    with default_precision(torch.float64):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("max_l", [1, 2, 3, 4])
def test_harmonics_are_those_of_e3nn(max_l):
    unit = nn.functional.normalize(torch.randn(20, 3), dim=1)
    expected = import_e3nn().spherical_harmonics(list(range(max_l + 1)), unit, True, "component")
    torch.testing.assert_close(Harmonics(max_l)(unit), expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("max_l", [1, 2, 3])
def test_products_are_contractions_by_wigner_symbols(max_l):
    """Products of two are squared norms; of three they are proportional to the 3j contraction."""
    o3 = import_e3nn()
    fields = [torch.randn(2 * degree + 1, 30) for degree in range(1, max_l + 1)]
    module = SphereProducts(max_l)
    found = module(fields)
    assert len(found) == len(module.products)
    for degrees, values in zip(module.products, found, strict=True):
        parts = [fields[degree - 1] for degree in degrees]
        if len(degrees) == 2:
            expected = (parts[0] * parts[1]).sum(0) / (2 * degrees[0] + 1)
        else:
            symbols = o3.wigner_3j(*degrees, dtype=torch.float64)
            expected = torch.einsum("ijk,ia,ja,ka->a", symbols, *parts)
            expected = expected * (values @ expected) / (expected @ expected)
        torch.testing.assert_close(values, expected, rtol=EXACT, atol=EXACT)
        assert values.abs().max() > 1e-3


def test_every_invariant_of_three_fields_is_there():
    assert SphereProducts(2).products == [(1, 1), (2, 2), (1, 1, 2), (2, 2, 2)]
    assert (1, 2, 3) in SphereProducts(3).products


@pytest.fixture
def geometry():
    """What a backbone sees of two structures, one of them an atom alone."""
    seen = []
    atoms = contract.example(["Li", "O"])
    lone = atoms[:1]
    lone.pbc = False
    potential = build(config())
    potential.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    potential(collate([from_atoms(atoms, 4.0), from_atoms(lone, 4.0)]), outputs=())
    return seen[0]


def config(elements=("Li", "O"), **changes):
    return {
        "elements": list(elements),
        "precision": "float64",
        "backbone": {"_target_": "mlip.models.backbones.native.Native", **SIZES, **changes},
        "heads": {"energy": {"_target_": "mlip.models.heads.energy.Energy"}},
    }


def test_sums_over_neighbours_are_those_of_the_definition(geometry):
    backbone = Native(["Li", "O"], **SIZES)
    slots = NeighborSlots.of(geometry)
    layer = backbone.layers[1]
    scalars = torch.randn(geometry.atoms, 24)
    found = layer.sums(*backbone._basis(geometry, slots), scalars, slots)

    unit = nn.functional.normalize(geometry.edge_vectors, dim=1)
    harmonics = backbone.harmonics(unit)
    x = geometry.edge_lengths[:, None]
    bessel = (2 / 4.0) ** 0.5 * torch.sin(x * backbone.frequencies) / x
    u = x / 4.0
    envelope = 1 - 21 * u**5 + 35 * u**6 - 15 * u**7
    sender, receiver = geometry.edge_index
    sent = (scalars @ layer.send)[sender] * (envelope * bessel @ layer.radial)
    sums = torch.zeros(geometry.atoms, harmonics.shape[1], 24)
    sums.index_add_(0, receiver, harmonics[:, :, None] * sent[:, None, :])
    expected = torch.einsum("amc,mcd->mad", sums, layer.scale * layer.mix[layer.degrees])
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("channels", [8, 24])  # the general way, and the short one
def test_the_first_layer_takes_the_short_way_to_the_same_sums(geometry, channels):
    backbone = Native(["Li", "O"], **{**SIZES, "channels": channels})
    slots = NeighborSlots.of(geometry)
    layer, basis = backbone.layers[0], backbone._basis(geometry, slots)
    embedding, species = backbone.embedding, geometry.species
    short = layer.first_sums(*basis, embedding, species, slots)
    general = layer.sums(*basis, embedding[species], slots)
    torch.testing.assert_close(short, general, rtol=EXACT, atol=EXACT)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="max_l is 0"):
        build(config(max_l=0))
    with pytest.raises(ValueError, match="average_neighbors is not set"):
        build(config(average_neighbors=None))

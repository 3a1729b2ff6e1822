"""The fast product of features and harmonics equals that of e3nn, twice differentiated too."""

import pytest
import torch

from mlip.models.channel_product import ChannelProduct
from mlip.runtime import default_precision, import_e3nn

EXACT = 1e-12
FEATURES, HARMONICS = "4x0e+3x1o+2x1e+2x2e", "1x0e+1x1o+1x2e"
WANTED = ("0e", "0o", "1o", "1e", "2e")


@pytest.fixture
def products():
    """Both products over every path, with parts of the output in the order of their irreps."""
    o3 = import_e3nn()
    features, harmonics = o3.Irreps(FEATURES), o3.Irreps(HARMONICS)
    found = [
        (first, second, mul, irrep)
        for first, (mul, one) in enumerate(features)
        for second, (_, two) in enumerate(harmonics)
        for irrep in one * two
        if irrep in [o3.Irrep(name) for name in WANTED]
    ]
    messages, place, _ = o3.Irreps([(mul, irrep) for *_, mul, irrep in found]).sort()
    paths = [(i, j, place[n], "uvu", True) for n, (i, j, *_) in enumerate(found)]
    given = features, harmonics, messages, paths
    with default_precision(torch.float64):
        general = o3.TensorProduct(*given, shared_weights=False, internal_weights=False)
        return general, ChannelProduct(*given)


@pytest.fixture
def inputs(products):
    generator = torch.Generator().manual_seed(0)
    general, _ = products
    widths = general.irreps_in1.dim, general.irreps_in2.dim, general.weight_numel
    return [
        torch.randn(5, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for width in widths
    ]


def test_messages_and_both_derivatives_are_those_of_e3nn(products, inputs):
    results = []
    for product in products:
        messages = product(*inputs)
        first = torch.autograd.grad(messages.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(one.sin().sum() for one in first), inputs)
        results.append([messages, *first, *second])
    assert products[0].weight_numel == products[1].weight_numel
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e3 * EXACT, rtol=EXACT)


def test_no_edge_gives_no_message(products, inputs):
    none = [tensor[:0] for tensor in inputs]
    assert products[1](*none).shape == (0, products[0].irreps_out.dim)


def test_it_follows_the_precision_of_its_inputs_and_saves_nothing(products, inputs):
    _, product = products
    assert not product.state_dict()
    assert product.float()(*[tensor.float() for tensor in inputs]).dtype == torch.float32

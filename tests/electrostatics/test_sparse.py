"""Sparse products against dense ones, with rows that are empty and places that occur twice."""

import pytest
import torch

from mlip.electrostatics import sparse
from mlip.electrostatics.sparse import SparsePattern

EXACT = 1e-14


@pytest.fixture(params=[torch.int32, torch.int64])
def pattern(request):
    offsets = torch.tensor([0, 3, 3, 5, 6], dtype=request.param)
    return SparsePattern(offsets, torch.tensor([0, 2, 2, 1, 4, 0], dtype=request.param), 5)


def dense(pattern, entries):
    rows, columns = pattern.row_of_entry.long(), pattern.indices.long()
    empty = entries.new_zeros(pattern.rows, pattern.columns)
    return empty.index_put((rows, columns), entries, accumulate=True)


@pytest.fixture
def values():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, generator=generator, dtype=torch.float64) for n in (6, 5, 4)]


def test_products_equal_dense_ones(pattern, values):
    entries, columns, rows = values
    matrix = dense(pattern, entries)
    assert (pattern.product(entries, columns) - matrix @ columns).abs().max() < EXACT
    assert (pattern.transposed_product(entries, rows) - matrix.T @ rows).abs().max() < EXACT


def test_indexed_sums_of_other_devices_equal_compiled_loops(pattern, values):
    entries, columns, rows = values
    for vector, transposed in ((columns, False), (rows, True)):
        here = sparse._compiled(entries, vector, pattern, transposed)
        there = sparse._accumulated(entries, vector, pattern, transposed)
        assert (here - there).abs().max() < EXACT


def test_derivatives_of_first_and_second_order(pattern, values):
    entries, columns, rows = (value.requires_grad_() for value in values)
    for product, vector in ((pattern.product, columns), (pattern.transposed_product, rows)):
        assert torch.autograd.gradcheck(product, (entries, vector))
        assert torch.autograd.gradgradcheck(product, (entries, vector))

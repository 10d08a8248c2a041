import math

import pytest
import torch

from mae_lightning.models import sincos_positions


def test_column_then_row_each_sines_then_cosines_on_a_grid_that_is_not_square():
    rows, columns, dim, prefix = 3, 5, 12, 2
    positions = sincos_positions((rows, columns), dim, prefix)
    assert positions.shape == (prefix + rows * columns, dim)
    assert not positions[:prefix].any()
    quarter = dim // 4
    for row in range(rows):
        for column in range(columns):
            frequencies = [10000 ** (-step / quarter) for step in range(quarter)]
            expected = [f(place * w) for place in (column, row) for f in (math.sin, math.cos) for w in frequencies]
            token = positions[prefix + row * columns + column]
            assert torch.equal(token, torch.tensor(expected, dtype=torch.float64).float())


def test_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"^sin-cos positions need a width that is a multiple of 4, not 18$"):
        sincos_positions((2, 2), 18)

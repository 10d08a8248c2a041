import pytest

from mae_lightning.callbacks.reconstructions import spread_evenly


@pytest.mark.parametrize(
    ("num_samples", "num_chosen", "expected"), [(100, 4, [0, 25, 50, 75]), (3, 8, [0, 1, 2]), (10, 3, [0, 3, 6])]
)
def test_pictures_are_spread_evenly(num_samples: int, num_chosen: int, expected: list[int]) -> None:
    assert spread_evenly(num_samples, num_chosen) == expected

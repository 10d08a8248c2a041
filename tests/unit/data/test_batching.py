"""Division of the global batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_lightning.data.batching import split_batch


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 8))
def test_the_parts_multiply_to_the_global_batch(micro: int, world: int, accumulation: int) -> None:
    assert split_batch(micro * world * accumulation, world, accumulation) == (micro, accumulation)


@given(st.integers(1, 256), st.integers(1, 8), st.integers(1, 64))
def test_the_bound_holds_with_the_fewest_micro_batches(per_device: int, world: int, bound: int) -> None:
    micro, accumulation = split_batch(per_device * world, world, None, bound)
    assert micro <= bound
    assert micro * accumulation == per_device
    assert all(per_device % fewer or per_device // fewer > bound for fewer in range(1, accumulation))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 8), "global_batch_size 100 does not divide by 8 devices; 96 or 104 would"),
        ((5, 8), "global_batch_size 5 does not divide by 8 devices; 8 would"),
        ((96, 8, 5), "global_batch_size 96 does not divide by 8 devices x accumulation 5 = 40; 80 or 120 would"),
        (
            (96, 2, 2, 16),
            "global_batch_size 96 over 2 devices x accumulation 2 gives micro-batches of 24, more than"
            " max_micro_batch_size 16; accumulation 3 or more, or none given, would fit",
        ),
        ((0, 1), "global_batch_size 0 must be at least 1"),
        ((4, 1, None, 0), "max_micro_batch_size 0 must be at least 1"),
    ],
)
def test_an_impossible_division_names_the_numbers(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError) as error:
        split_batch(*arguments)
    assert str(error.value) == message

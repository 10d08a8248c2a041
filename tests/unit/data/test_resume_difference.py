"""What became of a checkpoint's data, in words."""

import pytest

from mae_lightning.data.resume import difference_of_data

MANY = {f"{number}.tar": 10 for number in range(8)}


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"a.tar": 3, "b.tar": 4}, {"a.tar": 3, "b.tar": 5}, "7 -> 8 samples; b.tar: 4 -> 5"),
        ({"a.tar": 3, "b.tar": 4}, {"a.tar": 3, "c.tar": 4}, "7 -> 7 samples; b.tar: 4 -> none, c.tar: none -> 4"),
        ({"a.tar": 3}, {"a.tar": 3}, "3 samples in the same places, but others, or with other labels"),
        ({}, {"a.tar": 3}, "it does not say which"),
        (
            MANY,
            dict.fromkeys(MANY, 9),
            "80 -> 72 samples; " + ", ".join(f"{number}.tar: 10 -> 9" for number in range(5)) + ", and 3 more",
        ),
    ],
)
def test_what_changed(before: dict[str, int], now: dict[str, int], words: str) -> None:
    assert difference_of_data(before, now) == words

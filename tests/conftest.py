import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same random numbers, whichever ran before it."""
    torch.manual_seed(0)

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is slow, and not wrong
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test draws the same random numbers, whichever ran before it."""
    torch.manual_seed(0)

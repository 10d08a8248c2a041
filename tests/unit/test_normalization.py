import pytest
import torch

from mae_lightning.models import Normalization


def test_bytes_and_floats_give_the_same_and_undo_gives_them_back():
    normalize = Normalization([0.5, 0.25], [0.5, 0.125])
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 2, 1, 3)
    expected = torch.tensor([[-1.0, -0.6, 1.0], [-2.0, -0.4, 6.0]]).view(1, 2, 1, 3)
    torch.testing.assert_close(normalize(images), expected)
    torch.testing.assert_close(normalize(images.float() / 255), expected)
    torch.testing.assert_close(normalize.undo(expected), images.float() / 255)


def test_is_kept_in_checkpoints():
    assert set(Normalization([0.5], [0.5]).state_dict()) == {"mean", "std"}


def test_impossible_values_are_errors():
    with pytest.raises(ValueError, match="mean has 1 channels and std has 2"):
        Normalization([0.5], [0.5, 0.5])
    with pytest.raises(ValueError, match="above zero"):
        Normalization([0.5], [0.0])

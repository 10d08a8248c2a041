"""Ablation switches from the task into a checkpoint and back."""

import pytest
import torch

from mae_lightning.models import PatchMask, Pixels, RandomMasking, TransformerDecoder, sample_noise
from mae_lightning.tasks import MAEPretraining
from mae_lightning.weights.building import build_masked
from mae_lightning.weights.opening import open_weights


def task(**changes) -> MAEPretraining:
    torch.manual_seed(0)
    options = {"encoder": "nano/4", "decoder": TransformerDecoder(depth=1, dim=16, num_heads=2), "image_size": (16, 24)}
    options |= {"num_channels": 2, "mean": (0.5, 0.4), "std": (0.2, 0.3), "global_batch_size": 512}
    return MAEPretraining(**(options | changes))


def checkpoint(one: MAEPretraining, path) -> str:
    content = {"state_dict": one.state_dict()}
    one.on_save_checkpoint(content)
    torch.save(content, path / "last.ckpt")
    return str(path / "last.ckpt")


def mask_of(num_patches: int) -> PatchMask:
    return RandomMasking()(sample_noise(torch.arange(2), num_patches, 0, 0), (4, 6), 0.75)


@pytest.mark.parametrize(
    "switches",
    [
        {"mask_token_in_encoder": True},
        {"mask_token_in_encoder": "bert"},
        {"loss_on": "all"},
        {"target": Pixels(), "decoder": TransformerDecoder(depth=3, dim=8, num_heads=1)},
    ],
)
def test_a_checkpoint_says_how_to_build_its_model_again(switches, tmp_path):
    one = task(**switches)
    again = build_masked(open_weights(checkpoint(one, tmp_path)))
    images = torch.randn(2, 2, 16, 24)
    mask = mask_of(24)
    assert again.settings() == one.model.settings()
    torch.testing.assert_close(again.predict(images, mask), one.model.eval().predict(images, mask))

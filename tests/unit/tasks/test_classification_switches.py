"""ViT's variants from the task into a checkpoint and back."""

import pytest
import torch

from mae_lightning import load_encoder
from mae_lightning.models import TransformerDecoder
from mae_lightning.tasks import Classification, MAEPretraining

IMAGES = {"image_size": (16, 24), "num_channels": 2, "mean": (0.5, 0.4), "std": (0.2, 0.3)}


def task(**changes) -> Classification:
    torch.manual_seed(0)
    return Classification(**({"encoder": "nano/4", "num_classes": 3, "global_batch_size": 256} | IMAGES | changes))


def checkpoint(one, path) -> str:
    content = {"state_dict": one.state_dict()}
    one.on_save_checkpoint(content)
    torch.save(content, path / "last.ckpt")
    return str(path / "last.ckpt")


@pytest.mark.parametrize(
    "variant",
    [
        {"positions": "relative"},
        {"positions": "learned_2d", "positions_at": "every_layer", "block_norm": "batch"},
        {"positions": "none"},
    ],
)
def test_a_checkpoint_says_how_to_build_its_model_again(variant, tmp_path):
    one = task(**variant)
    path = checkpoint(one, tmp_path)
    images = torch.randn(2, 2, 16, 24)
    one.model.eval()
    torch.testing.assert_close(load_encoder(path, head=True)(images), one.model(images))
    tokens = load_encoder(path).forward_features(images)
    torch.testing.assert_close(tokens, one.model.forward_features(images))
    assert "encoder of" in task(init_from=path, **variant).origin


def test_positions_that_the_weights_would_replace_are_refused(tmp_path):
    decoder = TransformerDecoder(depth=1, dim=8, num_heads=1)
    path = checkpoint(MAEPretraining("nano/4", decoder, global_batch_size=256, **IMAGES), tmp_path)
    with pytest.raises(
        ValueError, match=r"brings positions .sincos_2d., which would replace .learned_1d.; leave out one"
    ):
        task(init_from=path, positions="learned_1d")
    assert torch.equal(task(init_from=path, positions="sincos_2d").model.pos_embed, task().model.pos_embed)
    path = checkpoint(task(positions="learned_1d"), tmp_path)
    assert not torch.equal(task(init_from=path).model.pos_embed, task().model.pos_embed)

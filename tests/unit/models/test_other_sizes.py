"""Images of another size than the model was built for, as resolution changes in training."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mae_lightning.data import Batch
from mae_lightning.models import (
    CrossAttentionDecoder,
    DiscreteVAE,
    MaskedAutoencoder,
    PatchMask,
    Tokens,
    TransformerDecoder,
    ViTSize,
    sample_noise,
    save_tokenizer,
)
from mae_lightning.tasks import MAEPretraining, SimMIMPretraining

SIZE = ViTSize(16, 2, 4, (4, 2))
DECODERS = {
    "transformer": lambda: TransformerDecoder(depth=2, dim=8, num_heads=2),
    "cross": lambda: CrossAttentionDecoder(depth=2, dim=8, num_heads=2),
    "mixtures": lambda: CrossAttentionDecoder(depth=2, dim=8, num_heads=2, inter_block=True),
}


def build(image_size: tuple[int, int], decoder: str = "transformer", **options) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(SIZE, DECODERS[decoder](), image_size=image_size, num_channels=2, **options)


def images(height: int, width: int) -> Tensor:
    return torch.randn(3, 2, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("decoder", "options"),
    [
        *((name, {}) for name in DECODERS),
        ("transformer", {"loss_on": "all"}),
        ("transformer", {"mask_token_in_encoder": True}),
    ],
    ids=str,
)
def test_the_loss_is_that_of_a_model_built_at_that_size_with_the_same_weights(decoder, options):
    model, native = build((8, 12), decoder, **options), build((16, 6), decoder, **options)
    weights = {name: value for name, value in model.state_dict().items() if "pos_embed" not in name}
    left_out = native.load_state_dict(weights, strict=False).missing_keys
    assert sorted(left_out) == ["decoder_pos_embed", "encoder.pos_embed"]
    shown, mask = images(16, 6), PatchMask.from_noise(sample_noise(torch.arange(3), 12, 0, 0), 0.75)
    assert native.grid == (4, 3)
    for training in (True, False):
        ours, theirs = (each.train(training)(shown, mask) for each in (model, native))
        torch.testing.assert_close(ours.loss_per_patch, theirs.loss_per_patch)
        torch.testing.assert_close(ours.prediction, theirs.prediction)
    torch.testing.assert_close(model.predict(shown, mask), native.predict(shown, mask))
    assert model.state_dict()["decoder_pos_embed"].shape == (1, 13, 8)


def test_another_number_of_patches_also_after_inference():
    model = build((8, 12))
    mask = PatchMask.from_noise(sample_noise(torch.arange(3), 30, 0, 0), 0.75)
    with torch.inference_mode():
        seen = model(images(20, 12), mask).loss_per_patch
    loss = model(images(20, 12), mask).loss_per_patch
    assert loss.shape == (3, 23)
    torch.testing.assert_close(loss.detach(), seen.clone())
    loss.mean().backward()
    with pytest.raises(ValueError, match=r"image size 9 x 12 is not a multiple of the patch size 4 x 2"):
        model(images(9, 12), mask)


def task(**options) -> MAEPretraining:
    torch.manual_seed(0)
    defaults = {"encoder": "nano/4", "decoder": DECODERS["transformer"](), "image_size": (16, 24), "num_channels": 2}
    return MAEPretraining(**(defaults | {"mean": (0.5, 0.4), "std": (0.2, 0.3), "global_batch_size": 8} | options))


def batch(height: int, width: int) -> Batch:
    pixels = torch.randint(256, (4, 2, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return {"image": pixels, "label": torch.full((4,), -1), "index": torch.arange(4), "valid": torch.ones(4).bool()}


def test_a_task_masks_the_grid_that_it_is_shown():
    shown = batch(32, 8)
    one, native = task(), task(image_size=(32, 8))
    torch.testing.assert_close(one.loss(shown, 3), native.loss(shown, 3))
    mask = one.draw_mask(shown["index"], seed=0, epoch=3, grid=(8, 2))
    assert torch.equal(mask.kept, native.draw_mask(shown["index"], seed=0, epoch=3).kept)
    assert mask.kept.shape == (4, 4)


def test_repeated_crops_have_masks_of_their_own():
    one = task()
    whole = batch(16, 24)
    image = whole["image"][:1].expand(4, -1, -1, -1)
    twice: Batch = {**whole, "image": image, "index": torch.zeros(4).long(), "repeat": torch.arange(4)}
    masks: list[PatchMask] = []
    one.model.register_forward_pre_hook(lambda module, inputs: masks.append(inputs[1]))
    one.loss(twice, 0)
    one.loss({**whole, "image": image, "index": torch.zeros(4).long()}, 0)
    kept, same = (mask.kept for mask in masks)
    assert len({tuple(row) for row in kept.tolist()}) == 4
    assert (same == kept[:1]).all()


def test_what_cannot_follow_is_refused(tmp_path: Path):
    sizes = [(32, 8), (16, 16)]
    task().check_image_sizes(sizes)
    with pytest.raises(
        ValueError, match=r"^image size 10 x 8 is not a multiple of the patch size 4 x 4; 8 x 8 would be$"
    ):
        task().check_image_sizes([(10, 8)])
    with pytest.raises(ValueError, match=r"^mask_ratio 0.75 keeps 0 of 1 patches"):
        task().check_image_sizes([(4, 4)])
    learned = task()
    with torch.no_grad():
        learned.model.encoder.pos_embed[0, 3] += 0.1
    with pytest.raises(ValueError, match=r"its positions are not the fixed sines and cosines, which other sizes need$"):
        learned.check_image_sizes(sizes)
    save_tokenizer(DiscreteVAE(num_codes=8, num_channels=2, dim=8, stride=4), tmp_path / "t.safetensors")
    tokens = task(target=Tokens(str(tmp_path / "t.safetensors")))
    with pytest.raises(ValueError, match=r"its target is a tokenizer with a grid of its own$"):
        tokens.check_image_sizes(sizes)
    swin = SimMIMPretraining("swin-nano/2", image_size=(16, 16), num_channels=1, mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match=r"^data.image_size_by_epoch .* SimMIM is built for images of one size$"):
        swin.check_image_sizes(sizes)

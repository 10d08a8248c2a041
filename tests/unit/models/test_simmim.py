from math import ceil

import pytest
import torch

from mae_lightning.models import PatchMask, SimMIM, SwinSize, num_kept_patches
from mae_lightning.models.simmim import PixelHead

TOY = SwinSize(8, (1, 1, 2), 2, patch_size=2)  # mask patches of 8 pixels, 4 x 4 tokens each


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SimMIM(TOY, image_size=(16, 24), num_channels=3)


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask():
    return PatchMask.from_noise(torch.rand(3, 6, generator=torch.Generator().manual_seed(2)), 0.6)


def pixel_mask(mask, row, height=16, width=24, side=8):
    """True where a pixel is hidden, pixel by pixel."""
    hidden = torch.zeros(height, width, dtype=torch.bool)
    for patch in mask.masked[row].tolist():
        top, left = side * (patch // (width // side)), side * (patch % (width // side))
        for y in range(top, top + side):
            for x in range(left, left + side):
                hidden[y, x] = True
    return hidden


def first_tokens(model, images, mask):
    """What enters the first stage, and what it would be without masks."""
    seen = []
    hook = model.encoder.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images, mask)
    hook.remove()
    return seen[0], model.encoder.patch_embed(images)


def test_mask_patch_and_shuffle_follow_from_patch_and_stages(model):
    assert (model.patch_size, model.grid, model.num_patches) == ((8, 8), (2, 3), 6)
    assert model.decoder.stride == 8
    with torch.device("meta"):
        base = SimMIM("swin-base/4", image_size=(192, 192))
    assert (base.patch_size, base.grid, base.decoder.stride) == ((32, 32), (6, 6), 32)
    assert base.encoder.layers[0].blocks[0].window_size == (6, 6)
    assert base.num_patches - num_kept_patches(base.num_patches, 0.6) == 22


def test_the_number_of_hidden_patches_is_rounded_up():
    for num_patches in range(3, 500):
        assert num_patches - num_kept_patches(num_patches, 0.6) == -(-6 * num_patches // 10), num_patches
    assert 36 - num_kept_patches(36, 0.6) == ceil(21.6)


def test_the_mask_token_stands_at_hidden_tokens_and_nowhere_else(model, images, mask):
    seen, plain = first_tokens(model, images, mask)
    count = 0
    for row in range(3):
        hidden = pixel_mask(mask, row)
        for y in range(8):
            for x in range(12):
                expected = model.mask_token[0, 0, 0] if hidden[2 * y, 2 * x] else plain[row, y, x]
                assert torch.equal(seen[row, y, x], expected)
                count += int(hidden[2 * y, 2 * x])
    assert count == 3 * 4 * 16  # 4 of 6 patches in each image, 16 tokens a patch


def test_loss_equals_the_papers_sum_pixel_by_pixel(model, images, mask):
    output = model(images, mask)
    reconstruction = model.images(model.predict(images, mask)).detach()
    for row in range(3):
        hidden = pixel_mask(mask, row)
        error = 0.0
        for channel in range(3):
            for y in range(16):
                for x in range(24):
                    if hidden[y, x]:
                        error += float((images[row, channel, y, x] - reconstruction[row, channel, y, x]).abs())
        expected = error / int(hidden.sum()) / 3
        assert output.loss_per_patch[row].mean().item() == pytest.approx(expected, rel=1e-5)


def test_the_head_is_a_linear_layer_a_token_and_its_square_of_pixels():
    head = PixelHead(dim=5, stride=4, num_channels=2)
    features = torch.randn(2, 5, 3, 2)
    images = head(features)
    assert images.shape == (2, 2, 12, 8)
    weight, bias = head.proj.weight[:, :, 0, 0], head.proj.bias
    for channel in range(2):
        for y in range(12):
            for x in range(8):
                output = channel * 16 + (y % 4) * 4 + x % 4
                expected = features[:, :, y // 4, x // 4] @ weight[output] + bias[output]
                torch.testing.assert_close(images[:, channel, y, x], expected)


def test_hidden_pixels_matter_to_the_loss_and_not_to_the_prediction(model, images, mask):
    hidden = torch.stack([pixel_mask(mask, row) for row in range(3)]).unsqueeze(1)
    before, changed = model(images, mask), model(torch.where(hidden, images + 1, images), mask)
    assert torch.equal(before.prediction, changed.prediction)
    expected = (before.prediction - model.patches(images + 1).gather(1, index(mask))).abs().mean(-1)
    torch.testing.assert_close(changed.loss_per_patch, expected)


def test_visible_pixels_matter_to_the_prediction_alone(model, images, mask):
    hidden = torch.stack([pixel_mask(mask, row) for row in range(3)]).unsqueeze(1)
    images = images.requires_grad_()
    output = model(images, mask)
    target = model.patches(images).gather(1, index(mask))
    torch.testing.assert_close(output.loss_per_patch, (output.prediction - target).abs().mean(-1))
    (direct,) = torch.autograd.grad(target.sum(), images, retain_graph=True)
    assert torch.equal(direct != 0, hidden.expand_as(images))
    (through,) = torch.autograd.grad(output.prediction.sum(), images)
    assert not through[hidden.expand_as(images)].any()
    assert through[~hidden.expand_as(images)].any()


def index(mask):
    return mask.masked.unsqueeze(-1).expand(-1, -1, 192)


def test_predictions_stand_at_hidden_places_and_zeros_elsewhere(model, images, mask):
    placed, output = model.predict(images, mask), model(images, mask)
    for row in range(3):
        assert not placed[row, mask.kept[row]].any()
        for place, patch in enumerate(mask.masked[row].tolist()):
            assert torch.equal(placed[row, patch], output.prediction[row, place])


def test_every_parameter_learns(model, images, mask):
    model(images, mask).loss_per_patch.mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_features_are_the_mean_of_the_last_stage_with_nothing_hidden(model, images):
    tokens = model.encoder.forward_features(images)
    assert tokens.shape == (3, 2, 3, 32)
    expected = sum(tokens[:, row, column] for row in range(2) for column in range(3)) / 6
    torch.testing.assert_close(model.features(images), expected)


def test_nothing_is_dropped_while_training(model, images, mask):
    first, second = (model.train()(images, mask).loss_per_patch for _ in range(2))
    assert torch.equal(first, second)


def test_the_loss_is_float32_under_autocast(model, images, mask):
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images, mask)
    assert output.loss_per_patch.dtype == torch.float32
    torch.testing.assert_close(output.loss_per_patch, model(images, mask).loss_per_patch, rtol=0.05, atol=0.05)


def test_token_and_biases_of_position_do_not_decay(model):
    undecayed = model.no_weight_decay()
    assert "mask_token" in undecayed
    assert undecayed <= dict(model.named_parameters()).keys()
    assert len(undecayed) == 1 + 4  # one table a block


def test_the_mask_token_starts_as_published():
    torch.manual_seed(0)
    token = SimMIM(SwinSize(512, (1,), 1, patch_size=4), image_size=(8, 8), num_channels=1).mask_token
    assert token.std().item() == pytest.approx(0.02, rel=0.15)
    assert token.abs().max() < 0.08


@pytest.mark.parametrize(
    ("encoder", "image_size", "message"),
    [
        ("swin-nano/2", (28, 28), "image size 28 x 28 is not a multiple of the 8 pixels"),
        ("swin_tiny_patch4_window7_224", (200, 200), "image size 200 x 200 is not a multiple of the 32 pixels"),
        ("swin_tiny_patch4_window7_224", (192, 192), "stage 1 has 48 x 48 tokens, no whole number of windows of 7 x 7"),
    ],
)
def test_images_that_do_not_divide_are_refused_in_one_line(encoder, image_size, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message) as caught:
        SimMIM(encoder, image_size=image_size)
    assert "\n" not in str(caught.value)

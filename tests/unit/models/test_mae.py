import pytest
import torch
from torch import nn

from mae_lightning.models import (
    Decoder,
    MaskedAutoencoder,
    NormalizedPixels,
    PatchMask,
    Pixels,
    Target,
    TransformerDecoder,
    ViTSize,
    sincos_positions,
)

SIZE = ViTSize(16, 2, 4, (4, 2))
IMAGE_SIZE = (8, 12)


def build(**options) -> MaskedAutoencoder:
    options = {"decoder": TransformerDecoder(depth=1, dim=8, num_heads=2)} | options
    encoder = options.pop("encoder", SIZE)
    return MaskedAutoencoder(encoder, image_size=IMAGE_SIZE, num_channels=5, **options)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 5, *IMAGE_SIZE)


@pytest.fixture
def mask() -> PatchMask:
    return PatchMask.from_noise(torch.rand(3, 12), 0.75)


def test_attributes_and_shapes(images, mask):
    model = build()
    assert (model.grid, model.patch_size, model.num_patches) == ((2, 6), (4, 2), 12)
    output = model(images, mask)
    assert output.loss_per_patch.shape == (3, 9)
    assert output.prediction.shape == (3, 9, 40)
    assert torch.equal(model.images(model.patches(images)), images)


def test_defaults_are_the_papers():
    with torch.device("meta"):
        model = MaskedAutoencoder(image_size=(224, 224))
    assert (model.encoder.embed_dim, len(model.encoder.blocks), model.patch_size) == (768, 12, (16, 16))
    assert (model.decoder.dim, len(model.decoder.blocks)) == (512, 8)
    assert isinstance(model.target, NormalizedPixels)
    assert model.loss_on == "masked"


def test_predict_puts_predictions_at_their_places(images, mask):
    model = build().eval()
    prediction = model(images, mask).prediction
    everywhere = model.predict(images, mask)
    for image in range(3):
        for place, patch in enumerate(mask.masked[image].tolist()):
            assert torch.equal(everywhere[image, patch], prediction[image, place])
        assert not everywhere[image, mask.kept[image]].any()


def test_loss_on_all_patches_is_in_natural_order(images, mask):
    model = build()
    on_all = build(loss_on="all")
    on_all.load_state_dict(model.state_dict())
    output, masked = on_all(images, mask), model(images, mask)
    assert output.loss_per_patch.shape == (3, 12)
    index = mask.masked
    torch.testing.assert_close(output.loss_per_patch.gather(1, index), masked.loss_per_patch)
    torch.testing.assert_close(output.prediction[mask.is_masked], masked.prediction.flatten(0, 1))
    target = model.target(model.patches(images))
    torch.testing.assert_close(output.loss_per_patch, (output.prediction - target).square().mean(-1))
    assert torch.equal(on_all.predict(images, mask), output.prediction)


def test_masked_pixels_do_not_reach_the_prediction(images, mask):
    model = build()
    hidden = model.images(torch.where(mask.is_masked.unsqueeze(-1), torch.randn(3, 12, 40), model.patches(images)))
    assert torch.equal(model(hidden, mask).prediction, model(images, mask).prediction)
    assert not torch.equal(model(hidden, mask).loss_per_patch, model(images, mask).loss_per_patch)


@pytest.mark.parametrize(
    "size", [ViTSize(16, 1, 4, (4, 2), class_token=False), ViTSize(16, 1, 4, (4, 2), num_registers=3)]
)
def test_without_class_token_and_with_registers(size, images, mask):
    model = build(encoder=size)
    num_prefix = model.encoder.num_prefix_tokens
    assert model.decoder_pos_embed.shape == (1, num_prefix + 12, 8)
    model(images, mask).loss_per_patch.mean().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_what_the_decoder_gets(images, mask):
    class Spy(Decoder):
        dim = 8

        def forward(self, visible, masked):
            self.visible, self.masked = visible, masked
            return torch.cat([visible, masked], dim=1)

    model = build(decoder=Spy())
    nn.init.normal_(model.decoder_pos_embed)
    prediction = model(images, mask).prediction
    positions, spy = model.decoder_pos_embed[0], model.decoder
    for image in range(3):
        for place, patch in enumerate(mask.masked[image].tolist()):
            torch.testing.assert_close(spy.masked[image, place], model.mask_token[0, 0] + positions[1 + patch])
    torch.testing.assert_close(prediction, model.decoder_pred(spy.masked))

    nn.init.zeros_(model.decoder_embed.weight)
    nn.init.zeros_(model.decoder_embed.bias)
    model(images, mask)
    for image in range(3):
        torch.testing.assert_close(spy.visible[image, 0], positions[0])
        for place, patch in enumerate(mask.kept[image].tolist()):
            torch.testing.assert_close(spy.visible[image, 1 + place], positions[1 + patch])


def test_a_target_of_ones_own(images, mask):
    class ChannelMeans(Target):
        def num_outputs(self, patch_pixels):
            return 5

        def forward(self, patches):
            return patches.unflatten(-1, (-1, 5)).mean(dim=-2)

        def loss(self, prediction, target):
            return (prediction - target).abs().amax(dim=-1)

    model = build(target=ChannelMeans())
    output = model(images, mask)
    assert output.prediction.shape == (3, 9, 5)
    patches = torch.stack([model.patches(images)[image, mask.masked[image]] for image in range(3)])
    means = torch.stack([patches[..., channel::5].mean(-1) for channel in range(5)], dim=-1)
    torch.testing.assert_close(output.loss_per_patch, (output.prediction - means).abs().max(-1).values)


def test_loss_is_float32_under_bf16_autocast(images, mask):
    class Projected(Pixels):
        def loss(self, prediction, target):
            self.types = {prediction.dtype, target.dtype, (prediction @ target.mT).dtype}
            return super().loss(prediction, target)

    model = build(target=Projected())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images, mask)
    assert output.prediction.dtype == torch.bfloat16
    assert output.loss_per_patch.dtype == torch.float32
    assert model.target.types == {torch.float32}
    patches = torch.stack([model.patches(images)[image, mask.masked[image]] for image in range(3)])
    assert torch.equal(output.loss_per_patch, (output.prediction.float() - patches).square().mean(-1))


def test_fixed_positions_and_fresh_weights():
    model = build(decoder=TransformerDecoder(depth=1, dim=64, num_heads=2))
    assert not model.decoder_pos_embed.requires_grad
    assert torch.equal(model.decoder_pos_embed[0], sincos_positions((2, 6), 64, 1))
    assert 0.014 < model.mask_token.std() < 0.026
    for layer in (model.decoder_embed, model.decoder_pred):
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_images_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match=r"^image size 30 x 32 is not a multiple of the patch size 16 x 16; 32 x 32 would"
    ):
        MaskedAutoencoder("base/16", image_size=(30, 32))

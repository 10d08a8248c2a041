"""Mask tokens in the encoder (paper Table 1c), and BERT's replacement beside them."""

import pytest
import torch
from torch.distributed._composable import checkpoint

from mae_lightning.models import (
    MaskedAutoencoder,
    PatchMask,
    RandomMasking,
    TransformerDecoder,
    ViTSize,
    more_noise,
    repeated_blocks,
    sample_noise,
    step_flops,
)

SIZE = ViTSize(16, 2, 4, (4, 2))
IMAGE_SIZE = (8, 12)


def build(shown: bool | str, **options) -> MaskedAutoencoder:
    torch.manual_seed(0)
    decoder = TransformerDecoder(depth=1, dim=8, num_heads=2)
    options = {"num_channels": 3, "image_size": IMAGE_SIZE} | options
    model = MaskedAutoencoder(SIZE, decoder, mask_token_in_encoder=shown, **options)
    torch.nn.init.normal_(model.mask_token)
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, *IMAGE_SIZE)


@pytest.fixture
def mask() -> PatchMask:
    return RandomMasking()(sample_noise(torch.arange(3), 12, 0, 0), (2, 6), 0.75)


def predicted_by_loop(model: MaskedAutoencoder, images: torch.Tensor, mask: PatchMask, shown: dict) -> torch.Tensor:
    """One image at a time in natural order through timm's own encoder; ``shown`` replaces embedded patches."""
    encoder, rows = model.encoder, []
    for image in range(len(images)):
        tokens = [*encoder.patch_embed(images[image : image + 1])[0]]
        for patch in mask.masked[image].tolist():
            tokens[patch] = shown[image, patch]
        tokens = [encoder.cls_token[0, 0], *tokens]
        tokens = torch.stack([token + encoder.pos_embed[0, place] for place, token in enumerate(tokens)])
        features = encoder.norm(encoder.blocks(tokens.unsqueeze(0)))
        features = model.decoder_embed(features) + model.decoder_pos_embed
        features = model.decoder.norm(model.decoder.blocks(features))
        rows.append(model.decoder_pred(features)[0, 1:][mask.masked[image]])
    return torch.stack(rows)


def everywhere(token: torch.Tensor, mask: PatchMask) -> dict:
    return {(i, patch): token for i in range(len(mask.masked)) for patch in mask.masked[i].tolist()}


def test_the_encoder_sees_mask_tokens_and_the_decoder_what_became_of_them(images, mask):
    model = build(True)
    expected = predicted_by_loop(model, images, mask, everywhere(model.mask_token[0, 0], mask))
    torch.testing.assert_close(model(images, mask).prediction, expected)
    assert model.mask_token.shape == (1, 1, 16)
    assert build(False).mask_token.shape == (1, 1, 8)


def test_nothing_hidden_reaches_the_prediction(images, mask):
    model = build(True)
    hidden = model.images(torch.where(mask.is_masked.unsqueeze(-1), torch.randn(3, 12, 24), model.patches(images)))
    assert torch.equal(model(hidden, mask).prediction, model(images, mask).prediction)


def test_berts_replacement_follows_a_loop(images):
    mask = RandomMasking()(sample_noise(torch.arange(64), 12, 0, 0), (2, 6), 0.75)
    images = torch.randn(64, 3, *IMAGE_SIZE)
    model = build("bert")
    draws = more_noise(mask.noise, 18)
    shown, count = {}, {"token": 0, "random": 0, "unchanged": 0}
    for image in range(64):
        embedded = model.encoder.patch_embed(images[image : image + 1])[0]
        for turn, patch in enumerate(mask.masked[image].tolist()):
            choice, place = float(draws[image, turn]), float(draws[image, 9 + turn])
            if choice < 0.8:
                kind, shown[image, patch] = "token", model.mask_token[0, 0]
            elif choice < 0.9:
                kind, shown[image, patch] = "random", embedded[int(mask.kept[image][int(place * 3)])]
            else:
                kind, shown[image, patch] = "unchanged", embedded[patch]
            count[kind] += 1
    torch.testing.assert_close(model(images, mask).prediction, predicted_by_loop(model, images, mask, shown))
    assert 0.75 < count["token"] / 576 < 0.85
    assert min(count["random"], count["unchanged"]) > 0.06 * 576


def test_berts_replacement_does_not_depend_on_the_batch(images, mask):
    model = build("bert")
    alone = PatchMask(mask.kept[1:2], mask.masked[1:2], mask.noise[1:2])
    torch.testing.assert_close(model(images[1:2], alone).prediction, model(images, mask).prediction[1:2])


def test_berts_replacement_needs_the_noise(images, mask):
    with pytest.raises(ValueError, match=r"^mask_token_in_encoder 'bert' draws from the mask's noise, .*$"):
        build("bert")(images, PatchMask(mask.kept, mask.masked))


@pytest.mark.parametrize("shown", [True, "bert"])
def test_everything_learns_and_loss_on_all_is_in_natural_order(images, mask, shown):
    model, on_all = build(shown), build(shown, loss_on="all")
    output = on_all(images, mask)
    torch.testing.assert_close(output.prediction[mask.is_masked], model(images, mask).prediction.flatten(0, 1))
    output.loss_per_patch.mean().backward()
    assert all(p.grad is not None for p in on_all.parameters() if p.requires_grad)
    assert on_all.settings() == {"loss_on": "all", "mask_token_in_encoder": shown}


def flops_of_step(size: str, shown: bool) -> float:
    with torch.device("meta"):
        model = MaskedAutoencoder(size, image_size=(224, 224), mask_token_in_encoder=shown)
    return step_flops(model, 49) / 1e9


@pytest.mark.parametrize(
    ("size", "least", "most", "without", "with_tokens"),
    [("base/16", 2.3, 2.4, 58.5, 137.7), ("large/16", 3.2, 3.3, 124.2, 401.8)],
)
def test_flops_with_mask_tokens_over_without(size, least, most, without, with_tokens):
    plain, full = flops_of_step(size, False), flops_of_step(size, True)
    print(f"{size}: {full:.1f} G over {plain:.1f} G = {full / plain:.3f}")
    assert least <= full / plain <= most
    visible, tokens, width = 50, 197, 512  # whose queries, projection and MLP the last decoder block leaves out
    saved = 3 * 2 * visible * (9 * width**2 + 2 * tokens * width) / 1e9
    assert plain == pytest.approx(without - saved, rel=0.02)
    assert full == pytest.approx(with_tokens - saved, rel=0.02)


def test_flops_are_those_of_the_matrix_products():
    """Two a product and its addition, forward; twice that backward, once where no gradient is needed of the input."""
    model = build(False)
    (tokens, decoded), (dim, width) = (1 + 3, 1 + 12), (16, 8)

    def block(count: int, channels: int, asked: int | None = None) -> int:
        asked = count if asked is None else asked
        linear = (3 * count + asked * (1 + 4 + 4)) * channels * channels
        return 3 * 2 * (linear + 2 * asked * count * channels)

    embed = 2 * 2 * 3 * 24 * dim
    between = 3 * 2 * (tokens * dim * width + 9 * width * 24)
    assert step_flops(model, 3) == embed + 2 * block(tokens, dim) + between + block(decoded, width, asked=9)
    assert next(model.parameters()).device.type == "cpu"


def test_flops_are_the_same_where_activations_are_computed_again_and_blocks_are_compiled():
    model = build(False)
    before = step_flops(model, 3)
    for block in repeated_blocks(model):
        checkpoint(block)
        block.compile(backend="eager")
    assert step_flops(model, 3) == before

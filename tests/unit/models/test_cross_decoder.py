"""The decoder by cross-attention against a token-by-token oracle, and its part of the masked patches."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mae_lightning.models import (
    CrossAttentionDecoder,
    MaskedAutoencoder,
    Normalization,
    PatchMask,
    ViTSize,
    sample_noise,
    step_flops,
)
from mae_lightning.models.masking import some_masked
from mae_lightning.pictures import reconstruct
from mae_lightning.weights import describe
from mae_lightning.weights.building import COMPONENTS

SIZE = ViTSize(16, 2, 4, (4, 2))
MASK = PatchMask.from_noise(sample_noise(torch.arange(3), 12, 0, 0), 0.75)


def build(**options) -> MaskedAutoencoder:
    torch.manual_seed(0)
    decoder = CrossAttentionDecoder(**{"depth": 2, "dim": 8, "num_heads": 2, "mlp_ratio": 3.0} | options)
    model = MaskedAutoencoder(SIZE, decoder, image_size=(8, 12), num_channels=5)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(1))


def linear(layer, token: Tensor) -> Tensor:
    return torch.stack([(row * token).sum() for row in layer.weight]) + layer.bias


def norm(layer, token: Tensor) -> Tensor:
    return (token - token.mean()) / (token.var(correction=0) + 1e-6).sqrt() * layer.weight + layer.bias


def oracle(model: MaskedAutoencoder, contexts: list[list[Tensor]], place: int) -> Tensor:
    """The prediction for one place of one image, in scalars and single tokens; a context for each block."""
    positions = model.decoder_pos_embed[0]
    token = model.mask_token[0, 0] + positions[1 + place]
    for block, context in zip(model.decoder.blocks, contexts, strict=True):
        query = linear(block.query, norm(block.norm1, token))
        keys_values = [linear(block.key_value, seen) for seen in context]
        read = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            logits = [float((query[part] * kv[:8][part]).sum()) / 2.0 for kv in keys_values]
            shares = [math.exp(logit) / sum(map(math.exp, logits)) for logit in logits]
            read.append(sum(share * kv[8:][part] for share, kv in zip(shares, keys_values, strict=True)))
        token = token + linear(block.proj, torch.cat(read))
        token = token + linear(block.mlp.fc2, F.gelu(linear(block.mlp.fc1, norm(block.norm2, token))))
    return linear(model.decoder_pred, norm(model.decoder.norm, token))


def placed(model: MaskedAutoencoder, tokens: Tensor, kept: Tensor) -> list[Tensor]:
    """An image's features at the decoder's width, class token first, with positions."""
    places = [0, *(1 + place for place in kept.tolist())]
    embedded = [linear(model.decoder_embed, token) for token in tokens]
    return [token + model.decoder_pos_embed[0, place] for token, place in zip(embedded, places, strict=True)]


@pytest.mark.parametrize("inter_block", [False, True])
@torch.no_grad()
def test_every_prediction_is_the_oracles(images, inter_block):
    model = build(inter_block=inter_block).eval()
    prediction, encoder = model(images, MASK).prediction, model.encoder
    assert prediction.shape == (3, 9, 40)
    for image, kept in enumerate(MASK.kept):
        patches = model.patches(images)[image, kept]
        embedded = patches @ encoder.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1).T
        tokens = embedded + encoder.patch_embed.proj.bias + encoder.pos_embed[0, 1 + kept]
        features = [torch.cat([encoder.cls_token[0] + encoder.pos_embed[0, :1], tokens])]
        for block in encoder.blocks:
            features.append(block(features[-1].unsqueeze(0))[0])
        features[-1] = encoder.norm(features[-1])
        if inter_block:
            weights, norms = model.mixture.weights, model.mixture.norms
            sums = [sum(float(w) * f for w, f in zip(row, features, strict=True)) for row in weights]
            mixed = [torch.stack([norm(layer, token) for token in s]) for layer, s in zip(norms, sums, strict=True)]
        else:
            mixed = [features[-1]] * 2
        contexts = [placed(model, tokens, kept) for tokens in mixed]
        for number, place in enumerate(MASK.masked[image].tolist()):
            expected = oracle(model, contexts, place)
            torch.testing.assert_close(prediction[image, number], expected, rtol=1e-4, atol=1e-5)


def test_no_mask_token_sees_another():
    decoder, visible, masked = build().decoder, torch.randn(2, 4, 8), torch.randn(2, 5, 8)
    together = decoder(visible, masked)
    for place in range(5):
        alone = decoder(visible, masked[:, place : place + 1])
        torch.testing.assert_close(together[:, place : place + 1], alone)


def test_training_predicts_a_part_and_evaluation_all(images):
    model = build()
    chosen = model.predicted(MASK)
    assert chosen.shape == (3, 3)
    output = model.train()(images, MASK)
    everything = model.eval()(images, MASK)
    assert everything.loss_per_patch.shape == (3, 9)
    for image in range(3):
        for number, place in enumerate(chosen[image].tolist()):
            among = MASK.masked[image].tolist().index(place)
            torch.testing.assert_close(output.prediction[image, number], everything.prediction[image, among])
            torch.testing.assert_close(output.loss_per_patch[image, number], everything.loss_per_patch[image, among])
    everywhere = model.predict(images, MASK)
    assert everywhere[MASK.is_masked].any(dim=1).all()
    assert not model.train().predict(images, MASK)[~MASK.is_masked].any()


def test_only_predicted_patches_count_in_the_loss(images):
    model = build().train()
    chosen, patches = model.predicted(MASK), model.patches(images)
    counts = torch.zeros(3, 12, dtype=torch.bool).scatter(1, chosen, True).unsqueeze(-1)
    before = model(images, MASK).loss_per_patch
    for changed, is_same in ((MASK.is_masked.unsqueeze(-1) & ~counts, True), (counts, False)):
        other = model.images(torch.where(changed, torch.randn(patches.shape), patches))
        assert torch.equal(model(other, MASK).loss_per_patch, before) == is_same


def test_the_part_is_drawn_uniformly_from_the_noise_alone():
    noise = sample_noise(torch.arange(3000), 12, 0, 0)
    mask = PatchMask.from_noise(noise, 0.75)
    chosen = some_masked(mask, 1 / 3)
    assert (chosen.diff(dim=1) > 0).all()
    assert mask.is_masked.gather(1, chosen).all()
    assert torch.equal(some_masked(PatchMask.from_noise(noise[7:9], 0.75), 1 / 3), chosen[7:9])
    rank = (mask.masked.unsqueeze(1) == chosen.unsqueeze(2)).long().argmax(dim=2)
    shares = torch.bincount(rank.flatten(), minlength=9) / 3000
    assert (shares - 1 / 3).abs().max() < 0.035
    assert some_masked(mask, 0.01).shape == (3000, 1)
    with pytest.raises(ValueError, match=r"^a part of the masked patches is drawn from the mask's noise"):
        some_masked(PatchMask(mask.kept, mask.masked), 0.5)


@pytest.mark.parametrize("inter_block", [False, True])
def test_every_parameter_trains(images, inter_block):
    model = build(inter_block=inter_block)
    model(images, MASK).loss_per_patch.mean().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad.any() for name, p in model.named_parameters() if name.startswith(("decoder.", "mixture.")))


def test_pictures_show_every_masked_patch(images):
    model = build().eval()
    with torch.no_grad():
        drawn = reconstruct(model, Normalization([0.5] * 5, [0.2] * 5), images, MASK)
    assert all(torch.isfinite(column).all() for column in drawn.columns().values() if torch.is_tensor(column))
    assert model.predict(images, MASK)[MASK.is_masked].any(dim=1).all()


def test_the_card_builds_it_again():
    decoder = CrossAttentionDecoder(depth=3, dim=16, num_heads=4, predicted_share=0.25, inter_block=True)
    said = describe(decoder)
    again = COMPONENTS[said["class_path"]](**said["init_args"])
    assert describe(again) == said
    assert again.load_state_dict(decoder.state_dict())
    assert (again.predicted_share, again.num_mixtures) == (0.25, 3)


def test_cost_of_a_step_counts_the_predicted_part():
    with torch.device("meta"):
        standard = MaskedAutoencoder(image_size=(224, 224))
        crossing = MaskedAutoencoder(decoder=CrossAttentionDecoder(), image_size=(224, 224))
        everything = MaskedAutoencoder(decoder=CrossAttentionDecoder(predicted_share=1.0), image_size=(224, 224))
    flops = [step_flops(model, 49) for model in (standard, crossing, everything)]
    assert flops[1] / flops[0] == pytest.approx(0.65, abs=0.015)
    assert flops[2] / flops[0] == pytest.approx(0.98, abs=0.015)
    assert step_flops(crossing.eval(), 49) == flops[1]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^predicted_share 0 must be above 0 and at most 1$"):
        CrossAttentionDecoder(predicted_share=0.0)
    with pytest.raises(ValueError, match=r"^a decoder of width 50 cannot be split into 4 heads; use a multiple of it$"):
        CrossAttentionDecoder(dim=50, num_heads=4)
    for options in ({"loss_on": "all"}, {"mask_token_in_encoder": True}):
        with pytest.raises(ValueError, match=r"^CrossAttentionDecoder decodes masked patches alone"):
            MaskedAutoencoder(SIZE, CrossAttentionDecoder(depth=1, dim=8, num_heads=2), image_size=(8, 12), **options)

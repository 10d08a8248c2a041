"""Rectangles and five channels, which Hugging Face refuses, against the paper's equations written out in loops."""

import math

import pytest
import torch
from torch import Tensor

from mae_lightning.models import MaskedAutoencoder, NormalizedPixels, PatchMask, Pixels, TransformerDecoder, ViTSize

IMAGE_SIZE, PATCH, CHANNELS = (24, 8), (8, 2), 5
GRID = (3, 4)
HEADS = {"encoder": 4, "decoder": 2}


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return torch.stack([sum(weight[o, i] * x[i] for i in range(len(x))) + bias[o] for o in range(len(bias))])


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / torch.sqrt(variance + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(tokens: list[Tensor], state: dict[str, Tensor], name: str, heads: int) -> list[Tensor]:
    dim = len(tokens[0])
    size = dim // heads
    qkv = [linear(token, state, f"{name}.qkv") for token in tokens]
    mixed = []
    for query in qkv:
        parts = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = [query[:dim][part] @ key[dim : 2 * dim][part] / math.sqrt(size) for key in qkv]
            total = sum(torch.exp(score) for score in scores)
            values = [value[2 * dim :][part] for value in qkv]
            parts.append(sum(torch.exp(s) / total * v for s, v in zip(scores, values, strict=True)))
        mixed.append(torch.cat(parts))
    return [linear(token, state, f"{name}.proj") for token in mixed]


def transformer(tokens: list[Tensor], state: dict[str, Tensor], name: str, depth: int, heads: int) -> list[Tensor]:
    for block in (f"{name}.blocks.{index}" for index in range(depth)):
        attended = attention([norm(t, state, f"{block}.norm1") for t in tokens], state, f"{block}.attn", heads)
        tokens = [t + a for t, a in zip(tokens, attended, strict=True)]
        hidden = [linear(norm(t, state, f"{block}.norm2"), state, f"{block}.mlp.fc1") for t in tokens]
        activated = [0.5 * h * (1 + torch.erf(h / math.sqrt(2))) for h in hidden]
        tokens = [t + linear(a, state, f"{block}.mlp.fc2") for t, a in zip(tokens, activated, strict=True)]
    return [norm(t, state, f"{name}.norm") for t in tokens]


def cut(image: Tensor, patch: int) -> Tensor:
    top, left = patch // GRID[1] * PATCH[0], patch % GRID[1] * PATCH[1]
    return image[:, top : top + PATCH[0], left : left + PATCH[1]]


def oracle_losses(state: dict[str, Tensor], image: Tensor, kept: list[int], normalise: bool) -> list[Tensor]:
    """The loss of each masked patch of one image."""
    filters, bias = state["encoder.patch_embed.proj.weight"], state["encoder.patch_embed.proj.bias"]
    positions = state["encoder.pos_embed"][0]
    tokens = [state["encoder.cls_token"][0, 0] + positions[0]]
    tokens += [(filters * cut(image, p)).sum(dim=(1, 2, 3)) + bias + positions[1 + p] for p in kept]
    encoded = transformer(tokens, state, "encoder", 2, HEADS["encoder"])

    embedded = [linear(token, state, "decoder_embed") for token in encoded]
    places = dict(zip(kept, embedded[1:], strict=True))
    everywhere = [places.get(patch, state["mask_token"][0, 0]) for patch in range(GRID[0] * GRID[1])]
    decoder_positions = state["decoder_pos_embed"][0]
    tokens = [t + p for t, p in zip([embedded[0], *everywhere], decoder_positions, strict=True)]
    decoded = transformer(tokens, state, "decoder", 1, HEADS["decoder"])

    losses = []
    for patch in (p for p in range(GRID[0] * GRID[1]) if p not in kept):
        values = torch.stack([channels[y, x] for y in range(8) for x in range(2) for channels in cut(image, patch)])
        if normalise:
            mean = sum(values) / len(values)
            values = (values - mean) / torch.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) + 1e-6)
        errors = (linear(decoded[1 + patch], state, "decoder_pred") - values) ** 2
        losses.append(sum(errors) / len(errors))
    return losses


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=["pixels", "normalised pixels"])
def test_losses_and_gradients_of_rectangles_with_five_channels(target):
    model = MaskedAutoencoder(
        ViTSize(8, 2, HEADS["encoder"], PATCH, mlp_ratio=2.0),
        TransformerDecoder(depth=1, dim=8, num_heads=HEADS["decoder"], mlp_ratio=2.0),
        target,
        image_size=IMAGE_SIZE,
        num_channels=CHANNELS,
    ).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, CHANNELS, *IMAGE_SIZE, dtype=torch.float64)
    mask = PatchMask.from_noise(torch.rand(2, 12), 0.75)
    output = model(images, mask)
    state = dict(model.named_parameters())
    normalise = isinstance(target, NormalizedPixels)
    rows = [
        oracle_losses(state, image, kept.tolist(), normalise) for image, kept in zip(images, mask.kept, strict=True)
    ]
    expected = torch.stack([torch.stack(row) for row in rows])
    torch.testing.assert_close(output.loss_per_patch, expected, rtol=1e-10, atol=1e-12)

    trained = {name: p for name, p in state.items() if p.requires_grad}
    ours = torch.autograd.grad(output.loss_per_patch.mean(), list(trained.values()))
    theirs = torch.autograd.grad(expected.mean(), list(trained.values()))
    for name, our_grad, their_grad in zip(trained, ours, theirs, strict=True):
        torch.testing.assert_close(
            our_grad, their_grad, rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )

"""What ViT was compared with, in timm's model: starts, who learns, copies, norms and mistakes."""

import math
from copy import deepcopy

import pytest
import torch

from mae_lightning.models import (
    ViTSize,
    build_classifier,
    no_weight_decay,
    raster_sincos_positions,
    sincos_positions,
)
from mae_lightning.optim import layerwise_groups

SMALL = {"num_classes": 3, "image_size": (8, 12), "num_channels": 3}
SIZE = ViTSize(16, 2, 2, 4)


def build(encoder=SIZE, **options):
    torch.manual_seed(0)
    return build_classifier(encoder, **(SMALL | options))


def test_raster_sincos_follows_the_transformer_paper():
    table = raster_sincos_positions(6, 8, num_prefix_tokens=2)
    assert not table[:2].any()
    for place in range(6):
        for i in range(4):
            angle = place / 10000 ** (2 * i / 8)
            assert float(table[2 + place, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[2 + place, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)
    with pytest.raises(ValueError, match=r"^sin-cos positions along a sequence need an even width, not 7$"):
        raster_sincos_positions(6, 7)


def test_what_starts_how_and_what_learns():
    default, noise = build(), build(positions="learned_1d")
    assert torch.equal(default.pos_embed[0], sincos_positions((2, 3), 16, 1))
    assert default.pos_embed.requires_grad
    assert noise.pos_embed.requires_grad
    assert 0.015 < noise.pos_embed.std() < 0.025
    for name, table in (
        ("sincos_1d", raster_sincos_positions(6, 16, 1)),
        ("sincos_2d", sincos_positions((2, 3), 16, 1)),
    ):
        fixed = build(positions=name)
        assert torch.equal(fixed.pos_embed[0], table)
        assert not fixed.pos_embed.requires_grad
        assert not any(
            p.requires_grad for p in build(positions=name, positions_at="every_layer").positions.parameters()
        )
    assert default.state_dict().keys() == noise.state_dict().keys() == fixed.state_dict().keys()


VARIANTS = [
    {"positions": "none"},
    {"positions": "relative"},
    {"positions": "learned_1d"},
    {"positions": "learned_2d"},
    {"positions": "learned_2d", "positions_at": "every_layer"},
    {"positions": "learned_1d", "positions_at": "every_layer_shared"},
    {"block_norm": "batch"},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("encoder", [SIZE, ViTSize(16, 2, 2, 4, num_registers=2), "vit_tiny_patch16_224"])
def test_every_variant_learns_decays_and_copies(variant, encoder):
    size = {"image_size": (32, 48)} if isinstance(encoder, str) else {}
    model = build(encoder, head_std=0.1, **size, **variant)
    images = torch.randn(2, 3, *(size or SMALL)["image_size"])
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad and p.numel())
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert not torch.allclose(copy.eval()(images), model.eval()(images))
    copy.load_state_dict(model.state_dict())
    torch.testing.assert_close(copy(images), model(images))

    undecayed = no_weight_decay(model)
    groups = layerwise_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5, no_decay=undecayed)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    positional = [name for name in decays if "positions." in name or "offset_keys" in name or name == "pos_embed"]
    assert bool(positional) == (variant.get("positions") != "none")
    assert not any(decays[name] for name in positional)
    assert decays["blocks.0.attn.qkv.weight"] == 0.1


def test_positions_of_patches_alone():
    model = build("deit3_small_patch16_224", image_size=(32, 48), positions="learned_2d").eval()
    (table,) = model.positions
    assert table.prefix.shape == (0, 384)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 3, 32, 48)
    model(images)
    torch.testing.assert_close(seen[0][:, :1], model.cls_token)
    torch.testing.assert_close(seen[0][:, 1:], model.patch_embed(images) + table())


def test_batch_norm_is_over_images_and_tokens():
    model = build(block_norm="batch")
    norm = model.blocks[0].norm1
    tokens = torch.randn(3, 7, 16) * 2 + 1
    expected = tokens.clone()
    for channel in range(16):
        values = [float(tokens[image, token, channel]) for image in range(3) for token in range(7)]
        mean = sum(values) / 21
        variance = sum((value - mean) ** 2 for value in values) / 21
        expected[..., channel] = (tokens[..., channel] - mean) / math.sqrt(variance + 1e-5)
    torch.testing.assert_close(norm(tokens), expected)
    norm.eval()
    torch.testing.assert_close(norm(tokens[:1]), norm(tokens)[:1])
    assert isinstance(model.fc_norm, torch.nn.LayerNorm)
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in model.blocks.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "none", "positions_at": "every_layer"}, "positions 'none' are not added to tokens"),
        ({"positions": "relative", "positions_at": "every_layer_shared"}, "positions_at must be stem"),
        (
            {"encoder": "vit_dwee_patch16_reg1_gap_256", "image_size": (32, 32), "positions": "relative"},
            "plain attention",
        ),
        ({"encoder": "swin-nano/2", "image_size": (32, 32), "positions": "none"}, "are for vision transformers, not"),
        ({"encoder": "swin-nano/2", "image_size": (32, 32), "block_norm": "batch"}, "are for vision transformers, not"),
        ({"encoder": ViTSize(9, 1, 3, 4), "positions": "learned_2d"}, "multiple of 4, not 9"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

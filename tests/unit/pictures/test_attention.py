import math
import weakref

import pytest
import timm
import torch

from mae_lightning.models import SwinSize, ViTSize, build_classifier, build_encoder, build_swin
from mae_lightning.pictures.attention import attention_distance, attention_layers, attention_maps, attention_seen
from mae_lightning.pictures.style import NotDrawnError


def vit(class_token=True, num_registers=1):
    size = ViTSize(8, 3, 2, (4, 2), class_token=class_token, num_registers=num_registers)
    return build_encoder(size, image_size=(12, 8), num_channels=2).eval().requires_grad_(False)


def swin(image_size=(16, 24)):
    size = SwinSize(dim=8, depths=(2, 2), num_heads=2, patch_size=2, window_size=(4, 4))
    model = build_swin(size, image_size=image_size, num_channels=1).eval().requires_grad_(False)
    for name, values in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            values.normal_()
    return model


def weights_of_heads(attention, tokens):
    """Logits of every head between all tokens, written out."""
    query, key, _ = attention.qkv(tokens).chunk(3, dim=-1)
    dim = query.shape[-1] // attention.num_heads
    return [
        query[:, h * dim : (h + 1) * dim] @ key[:, h * dim : (h + 1) * dim].T / math.sqrt(dim)
        for h in range(attention.num_heads)
    ]


def vit_weights(encoder, image):
    """Attention of every block and head for one image, block by block."""
    tokens = encoder.norm_pre(encoder._pos_embed(encoder.patch_embed(image.unsqueeze(0))))
    found = []
    for block in encoder.blocks:
        found.append([logits.softmax(dim=1) for logits in weights_of_heads(block.attn, block.norm1(tokens)[0])])
        tokens = block(tokens)
    return found


def sharpen(encoder):
    """Makes attention far from uniform."""
    for name, values in encoder.named_parameters():
        if "qkv.weight" in name:
            values.mul_(6)


def test_distances_of_a_vit_are_those_of_a_loop():
    encoder, images = vit(), torch.randn(3, 2, 12, 8)
    sharpen(encoder)
    centres = [(4 * row, 2 * column) for row in range(3) for column in range(4)]
    expected = torch.zeros(3, 2)
    for image in images:
        for block, heads in enumerate(vit_weights(encoder, image)):
            for head, weights in enumerate(heads):
                for q, here in enumerate(centres):
                    row = [float(weights[2 + q, 2 + k]) for k in range(12)]
                    reach = sum(w * math.dist(here, there) for w, there in zip(row, centres, strict=True)) / sum(row)
                    expected[block, head] += reach / 12 / 3
    distance = attention_distance(encoder, images)
    torch.testing.assert_close(torch.stack(distance.by_head), expected)
    uniform = sum(math.dist(a, b) for a in centres for b in centres) / 144
    assert distance.uniform == pytest.approx([uniform] * 3)


def swin_oracle(block, features, stride):
    """Mean distance of each head and under equal weights, query by query over the whole grid."""
    rows, columns = features.shape[:2]
    (high, wide), (down, right) = block.window_size, block.shift_size
    logits = weights_of_heads(block.attn, block.norm1(features).flatten(0, 1))
    table = block.attn.relative_position_bias_table
    places = [(row, column) for row in range(rows) for column in range(columns)]
    sums, equal = [0.0] * len(logits), 0.0
    for q, (row, column) in enumerate(places):
        seen = []
        for k, (other_row, other_column) in enumerate(places):
            moved = [((r - down) % rows, (c - right) % columns) for r, c in ((row, column), (other_row, other_column))]
            same_window = all(a // w == b // w for a, b, w in zip(*moved, (high, wide), strict=True))
            same_side = (row < down) == (other_row < down) and (column < right) == (other_column < right)
            if same_window and same_side:
                offset = (moved[0][0] - moved[1][0] + high - 1) * (2 * wide - 1) + moved[0][1] - moved[1][1] + wide - 1
                seen.append((k, offset, stride * math.dist((row, column), (other_row, other_column))))
        for head, values in enumerate(logits):
            powers = [math.exp(float(values[q, k] + table[offset, head])) for k, offset, _ in seen]
            sums[head] += sum(p * far for p, (_, _, far) in zip(powers, seen, strict=True)) / sum(powers)
        equal += sum(far for _, _, far in seen) / len(seen)
    return [total / len(places) for total in sums], equal / len(places)


def test_distances_of_swins_windows_are_those_of_a_loop():
    encoder, image = swin(), torch.randn(1, 1, 16, 24)
    sharpen(encoder)
    expected, features = [], encoder.patch_embed(image)
    for stage in encoder.layers:
        features = stage.downsample(features)
        for block in stage.blocks:
            expected.append(swin_oracle(block, features[0], stride=16 // features.shape[1]))
            features = block(features)
    assert any(any(block.shift_size) for stage in encoder.layers for block in stage.blocks)
    distance = attention_distance(encoder, image)
    assert [heads.tolist() for heads in distance.by_head] == [pytest.approx(heads) for heads, _ in expected]
    assert distance.uniform == pytest.approx([equal for _, equal in expected])


def test_padding_of_windows_is_no_place():
    encoder = swin((12, 20))  # 6 x 10 tokens in windows of 4 x 4: padded to 8 x 12
    for layer in attention_layers(encoder):
        places = layer.places[layer.places >= 0]
        assert sorted(places.tolist()) == list(range(layer.grid[0] * layer.grid[1]))
    first = attention_layers(encoder)[0]
    assert (first.places < 0).sum() == 8 * 12 - 6 * 10
    assert all(heads.isfinite().all() for heads in attention_distance(encoder, torch.randn(2, 1, 12, 20)).by_head)


@pytest.mark.parametrize(("class_token", "query"), [(True, "class token"), (False, "mean patch")])
def test_maps_and_rollout_are_those_of_a_loop(class_token, query):
    encoder, images = vit(class_token, num_registers=0), torch.randn(2, 2, 12, 8)
    sharpen(encoder)
    maps = attention_maps(encoder, images)
    assert maps.query == query
    for number, image in enumerate(images):
        blocks = vit_weights(encoder, image)
        rolled = torch.eye(12 + class_token)
        for heads in blocks:
            rolled = (sum(heads) / 2 + torch.eye(len(rolled))) / 2 @ rolled
        for seen, weights in ((maps.rollout[number], rolled), *zip(maps.by_head[number], blocks[-1], strict=True)):
            row = weights[0, 1:] if class_token else weights.mean(dim=0)
            torch.testing.assert_close(seen, (row / row.sum()).view(3, 4))


def test_no_map_outlives_its_block():
    encoder, seen = vit(), []

    def see(number, weights):
        assert all(earlier() is None for earlier in seen)
        seen.append(weakref.ref(weights))

    with torch.no_grad(), attention_seen(attention_layers(encoder), see):
        encoder.forward_features(torch.randn(2, 2, 12, 8))
    assert len(seen) == 3


def test_the_encoder_is_left_as_it_was():
    encoder = vit()
    was = [block.attn.fused_attn for block in encoder.blocks]
    assert all(was)
    attention_distance(encoder, torch.randn(1, 2, 12, 8))
    assert [block.attn.fused_attn for block in encoder.blocks] == was
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in encoder.blocks)


def test_what_has_no_maps_says_why():
    with pytest.raises(NotDrawnError, match="Swin attends inside windows"):
        attention_maps(swin(), torch.randn(1, 1, 16, 24))
    with pytest.raises(NotDrawnError, match="ResNet has no attention"):
        attention_layers(timm.create_model("resnet18"))
    size = ViTSize(8, 1, 2, 4)
    relative = build_classifier(size, num_classes=0, image_size=(8, 8), num_channels=1, positions="relative")
    with pytest.raises(NotDrawnError, match="RelativeAttention never forms"):
        attention_layers(relative)

"""ViT's equations 1 to 4 and attention (Dosovitskiy et al. 2020, Section 3.1 and Appendix A) against plain loops.

The model is the one that is trained: its weights are read, its forward pass is not.
"""

import math

import pytest
import torch
from torch import Tensor

from mae_lightning.models import ViTSize, build_classifier, encode_visible

DIM, DEPTH, HEADS, PATCH, GRID = 12, 2, 3, 2, (2, 3)
NUM_PATCHES = GRID[0] * GRID[1]
SIZE = ViTSize(DIM, DEPTH, HEADS, PATCH)


def vit(**options):
    torch.manual_seed(0)
    images = {"image_size": (GRID[0] * PATCH, GRID[1] * PATCH), "num_channels": 2}
    model = build_classifier(SIZE, num_classes=4, pool="class", **images, **options).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, GRID[0] * PATCH, GRID[1] * PATCH, dtype=torch.float64)


def linear(layer, vector: list[float]) -> list[float]:
    rows, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * x for w, x in zip(row, vector, strict=True)) + b for row, b in zip(rows, bias, strict=True)]


def layer_norm(norm, vector: list[float]) -> list[float]:
    mean = sum(vector) / DIM
    std = math.sqrt(sum((x - mean) ** 2 for x in vector) / DIM + 1e-6)
    return [(x - mean) / std * w + b for x, w, b in zip(vector, norm.weight.tolist(), norm.bias.tolist(), strict=True)]


def attention(layer, tokens: list[list[float]], offset_keys: list[list[float]] | None = None) -> list[list[float]]:
    """Softmax(Q K^T / sqrt d_k) V for each head, heads side by side, then one linear layer (Appendix A, 5 to 8)."""
    rows = [linear(layer.qkv, token) for token in tokens]
    width = DIM // HEADS
    mixed = [[0.0] * DIM for _ in tokens]
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        queries, keys, values = ([row[turn * DIM : (turn + 1) * DIM][part] for row in rows] for turn in range(3))
        for q, query in enumerate(queries):
            logits = [sum(a * b for a, b in zip(query, key, strict=True)) for key in keys]
            for k in range(1, len(keys)):
                if offset_keys is not None and q > 0:
                    offset = (q - 1) - (k - 1)
                    vector = offset_keys[offset + NUM_PATCHES - 1][part]
                    logits[k] += sum(a * b for a, b in zip(query, vector, strict=True))
            weights = [math.exp(logit / math.sqrt(width)) for logit in logits]
            for channel in range(width):
                total = sum(w * value[channel] for w, value in zip(weights, values, strict=True))
                mixed[q][head * width + channel] = total / sum(weights)
    return [linear(layer.proj, row) for row in mixed]


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def add(first: list[list[float]], second: list[list[float]]) -> list[list[float]]:
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)]


def embedded(model, image: Tensor) -> list[list[float]]:
    """Without positions: the class token, then each flat patch times the filters."""
    tokens = [model.cls_token[0, 0].tolist()]
    weight, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias.tolist()
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            patch = image[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH].flatten().tolist()
            filters = weight.flatten(1).tolist()
            tokens.append(
                [sum(w * x for w, x in zip(f, patch, strict=True)) + b for f, b in zip(filters, bias, strict=True)]
            )
    return tokens


def equations(model, image: Tensor, added=lambda block: None) -> list[float]:
    """The class token's state y of one image; ``added`` gives positions before a block, if any."""
    tokens = embedded(model, image)
    if model.pos_embed is not None:
        tokens = add(tokens, model.pos_embed[0].tolist())  # equation 1
    for number, block in enumerate(model.blocks):
        if (positions := added(number)) is not None:
            tokens = add(tokens, positions)
        keys = block.attn.offset_keys.tolist() if hasattr(block.attn, "offset_keys") else None
        normed = [layer_norm(block.norm1, token) for token in tokens]
        tokens = add(attention(block.attn, normed, keys), tokens)  # equation 2
        hidden = [[gelu(x) for x in linear(block.mlp.fc1, layer_norm(block.norm2, token))] for token in tokens]
        tokens = add([linear(block.mlp.fc2, row) for row in hidden], tokens)  # equation 3
    return layer_norm(model.norm, tokens[0])  # equation 4


def check(model, image: Tensor, added=lambda block: None) -> None:
    expected = torch.tensor(equations(model, image, added), dtype=torch.float64)
    state = model.forward_head(model.forward_features(image.unsqueeze(0)), pre_logits=True)[0]
    torch.testing.assert_close(state, expected, rtol=1e-8, atol=1e-10)
    logits = torch.tensor(linear(model.head, expected.tolist()), dtype=torch.float64)
    torch.testing.assert_close(model(image.unsqueeze(0))[0], logits, rtol=1e-8, atol=1e-10)


def test_equations_1_to_4(image):
    check(vit(), image)


def test_the_encoder_of_pretraining_is_the_same_function(image):
    model = vit()
    kept = torch.arange(NUM_PATCHES).unsqueeze(0)
    state = encode_visible(model, image.unsqueeze(0), kept)[0, 0]
    torch.testing.assert_close(state, torch.tensor(equations(model, image), dtype=torch.float64))


def test_attention_of_several_heads():
    layer = vit().blocks[0].attn
    tokens = torch.randn(1, 5, DIM, dtype=torch.float64)
    torch.testing.assert_close(
        layer(tokens)[0], torch.tensor(attention(layer, tokens[0].tolist()), dtype=torch.float64)
    )


def test_relative_positions_are_keys_for_the_content_query(image):
    model = vit(positions="relative")
    assert model.pos_embed is None
    check(model, image)
    assert model.blocks[0].attn.offset_keys.shape == (2 * NUM_PATCHES - 1, DIM)


def test_no_positions(image):
    model = vit(positions="none")
    check(model, image)
    torch.testing.assert_close(model(image.unsqueeze(0)), model(moved(image).unsqueeze(0)))
    assert not torch.allclose(vit()(image.unsqueeze(0)), vit()(moved(image).unsqueeze(0)))


def moved(image: Tensor) -> Tensor:
    """The patches in another order."""
    return torch.cat([image[:, :, PATCH:], image[:, :, :PATCH]], dim=2)


def table_by_loop(table) -> list[list[float]]:
    if hasattr(table, "table"):
        return table.table[0].tolist()
    rows = [
        table.rows[row].tolist() + table.columns[column].tolist() for row in range(GRID[0]) for column in range(GRID[1])
    ]
    return [table.prefix[0].tolist(), *rows]


@pytest.mark.parametrize("positions", ["learned_1d", "learned_2d", "sincos_1d", "sincos_2d", "learned_from_sincos"])
@pytest.mark.parametrize("at", ["every_layer", "every_layer_shared"])
def test_positions_before_every_layer(image, positions, at):
    model = vit(positions=positions, positions_at=at)
    tables = [table_by_loop(table) for table in model.positions]
    assert len(tables) == (DEPTH if at == "every_layer" else 1)
    check(model, image, lambda block: tables[block % len(tables)])


def test_rows_and_columns_at_the_stem(image):
    model = vit(positions="learned_2d")
    (table,) = model.positions
    assert [list(part.shape) for part in (table.rows, table.columns, table.prefix)] == [[2, 6], [3, 6], [1, 12]]
    check(model, image, lambda block: table_by_loop(table) if block == 0 else None)

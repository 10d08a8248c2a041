import pytest
import torch
from torch import nn

from mae_lightning.models import TransformerDecoder


def test_blocks_over_visible_then_masked_tokens_and_a_final_norm():
    decoder = TransformerDecoder(depth=2, dim=16, num_heads=2, mlp_ratio=3.0)
    visible, masked = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    features = decoder(visible, masked)
    tokens = torch.cat([visible, masked], dim=1)
    for block in decoder.blocks:
        tokens = tokens + block.attn(block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
    torch.testing.assert_close(features, nn.functional.layer_norm(tokens, (16,), eps=1e-6))
    assert len(decoder.blocks) == 2
    assert decoder.blocks[0].mlp.fc1.out_features == 48
    assert {module.eps for module in decoder.modules() if isinstance(module, nn.LayerNorm)} == {1e-6}


def test_initialised_as_in_the_paper():
    decoder = TransformerDecoder(depth=1, dim=64, num_heads=4)
    layers = [module for module in decoder.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 4
    for layer in layers:
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_defaults_are_the_papers():
    with torch.device("meta"):
        decoder = TransformerDecoder()
    assert (decoder.depth, decoder.dim, decoder.num_heads, decoder.mlp_ratio) == (8, 512, 16, 4.0)
    assert len(decoder.blocks) == 8
    assert decoder.blocks[0].attn.num_heads == 16


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"^a decoder of width 50 cannot be split into 4 heads; use a multiple of it$"):
        TransformerDecoder(dim=50, num_heads=4)


def test_features_of_masked_tokens_alone_are_the_same():
    decoder = TransformerDecoder(depth=2, dim=16, num_heads=2).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    tokens = [torch.randn(2, 3, 16).double(), torch.randn(2, 5, 16).double()]
    found = []
    for decode in (decoder.of_masked, lambda *given: decoder(*given)[:, 3:]):
        visible, masked = (each.clone().requires_grad_() for each in tokens)
        decoder.zero_grad()
        features = decode(visible, masked)
        features.square().sum().backward()
        found.append([features, visible.grad, masked.grad, *(p.grad.clone() for p in decoder.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

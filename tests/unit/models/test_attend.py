"""Attention by the fastest kernel: what it computes, and where it leaves torch's."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import attention as timm_attention

from mae_lightning.models import (
    CrossAttentionDecoder,
    Decoder,
    MaskedAutoencoder,
    PatchMask,
    TransformerDecoder,
    attention,
    fuse_attention,
)
from mae_lightning.models.attention import Attention, attend, written_out

IMAGES, HEADS, ASKED, TOKENS, CHANNELS = 5, 2, 7, 9, 4


def _inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = (ASKED, TOKENS, TOKENS)
    drawn = [torch.randn(IMAGES, HEADS, length, CHANNELS, generator=generator) for length in lengths]
    return [part.to(dtype).requires_grad_() for part in drawn]


def test_written_out_is_the_loop() -> None:
    query, key, value = (part.detach().double() for part in _inputs(torch.float32))
    found = written_out(query, key, value)
    for image in range(IMAGES):
        for head in range(HEADS):
            for place in range(ASKED):
                products = [float(query[image, head, place] @ key[image, head, token]) for token in range(TOKENS)]
                powers = torch.tensor(products, dtype=torch.float64).div(CHANNELS**0.5).exp()
                expected = (powers / powers.sum()) @ value[image, head]
                torch.testing.assert_close(found[image, head, place], expected)


def test_sixteen_bits_on_a_cpu_give_torchs_values_and_gradients() -> None:
    ours, exact = _inputs(torch.bfloat16), [part.detach().float().requires_grad_() for part in _inputs(torch.bfloat16)]
    found, expected = attend(*ours), F.scaled_dot_product_attention(*exact)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape)
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.float(), other.grad, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("device", "dtype", "leaves"),
    [
        ("cpu", torch.bfloat16, True),
        ("cpu", torch.float16, True),
        ("cpu", torch.float32, False),
        ("meta", torch.bfloat16, False),
    ],
)
def test_only_sixteen_bits_on_a_cpu_leave_torchs_kernel(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, leaves: bool
) -> None:
    calls: list[torch.Tensor] = []

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        calls.append(query)
        return written_out(query, key, value)

    monkeypatch.setattr(attention, "written_out", watched)
    found = attend(*(part.detach().to(device) for part in _inputs(dtype)))
    assert found.shape == (IMAGES, HEADS, ASKED, CHANNELS)
    assert len(calls) == leaves


@pytest.mark.parametrize("decoder", [TransformerDecoder(depth=2), CrossAttentionDecoder(depth=2)])
def test_a_whole_model_leaves_it_or_is_told_not_to(monkeypatch: pytest.MonkeyPatch, decoder: Decoder) -> None:
    calls = []
    monkeypatch.setattr(attention, "written_out", lambda *parts: calls.append(1) or written_out(*parts))
    model = MaskedAutoencoder("nano/4", decoder, image_size=(16, 16))
    images, mask = torch.rand(2, 3, 16, 16), PatchMask.from_noise(torch.rand(2, 16), 0.75)
    with torch.autocast("cpu", torch.bfloat16):
        model(images, mask)
        assert len(calls) == 6 + 2
        fuse_attention(model)
        model(images, mask)
        assert len(calls) == 6 + 2


@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "scale_norm": True, "gated": True}], ids=["plain", "all"])
def test_it_is_timms_attention(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    ours = Attention(8, num_heads=2, qkv_bias=True, norm_layer=torch.nn.LayerNorm, **options)
    theirs = timm_attention.Attention(8, num_heads=2, qkv_bias=True, norm_layer=torch.nn.LayerNorm, **options)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=0, atol=0)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(ours(tokens, causal), theirs(tokens, causal), rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(tokens).float(), theirs(tokens).float(), atol=0.02, rtol=0.02)


def test_dropped_weights_are_timms() -> None:
    layer = Attention(8, num_heads=2, attn_drop=0.5)
    tokens = torch.randn(64, 5, 8)
    assert not torch.equal(layer(tokens), layer(tokens))
    assert torch.equal(layer.eval()(tokens), layer(tokens))

import pytest
import timm
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mae_lightning.models import ViTSize, build_encoder, encode_visible, sincos_positions

# One for each thing in which timm's plain names differ.
NAMES = {
    "test_vit": "plain",
    "test_vit2": "layer scale, registers, no class token",
    "test_vit3": "map pooling",
    "vit_xsmall_patch16_clip_224": "norm before the blocks, no bias in the patch embedding",
    "vit_wee_patch16_reg1_gap_256": "positions for patches only, norm after pooling",
    "vit_dwee_patch16_reg1_gap_256": "differential attention",
    "vit_pwee_patch16_reg1_gap_256": "parallel blocks",
    "vit_tiny_patch16_224": "plain",
    "vit_small_patch14_reg4_dinov2": "class token and registers",
    "deit3_small_patch16_224": "class token without position",
    "vit_medium_patch16_gap_256": "no class token",
}


def randomize(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)


def all_patches(encoder: VisionTransformer, batch: int) -> torch.Tensor:
    return torch.arange(encoder.patch_embed.num_patches).expand(batch, -1)


def is_plain(name: str) -> bool:
    with torch.device("meta"):
        model = timm.create_model(name)
    return type(model) is VisionTransformer and type(model.patch_embed) is PatchEmbed


@torch.no_grad()
def check_against_timm(name: str) -> None:
    with torch.device("meta"):
        patch = build_encoder(name, image_size=(448, 448), num_channels=2).patch_embed.patch_size
    size = (2 * patch[0], 3 * patch[1])
    encoder = build_encoder(name, image_size=size, num_channels=2).eval()
    randomize(encoder)
    images = torch.randn(2, 2, *size)
    expected = encoder.forward_features(images)
    torch.testing.assert_close(encode_visible(encoder, images, all_patches(encoder, 2)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_with_all_patches_kept_it_is_timms_forward_features(name):
    check_against_timm(name)


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_is_left_as_found_in_memory(name, monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        encoder = build_encoder(name, image_size=(448, 448), num_channels=1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in encoder.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in timm.list_models("*") if "_small_" in name or "_base_" in name])
def test_every_small_and_base_name_encodes_as_timm_does(name):
    if is_plain(name):
        check_against_timm(name)


def test_explicit_sizes_without_class_token_and_with_registers():
    size = ViTSize(16, 2, 4, (4, 2), mlp_ratio=3.0, class_token=False, num_registers=3)
    encoder = build_encoder(size, image_size=(8, 8), num_channels=5).eval()
    randomize(encoder)
    images = torch.randn(2, 5, 8, 8)
    tokens = encode_visible(encoder, images, all_patches(encoder, 2))
    assert tokens.shape == (2, 3 + 8, 16)
    torch.testing.assert_close(tokens, encoder.forward_features(images))
    assert encoder.blocks[0].mlp.fc1.out_features == 48


def test_kept_patches_alone_are_what_the_blocks_see():
    encoder = build_encoder(ViTSize(16, 2, 4, 2), image_size=(4, 6), num_channels=3).eval()
    randomize(encoder)
    images = torch.randn(2, 3, 4, 6)
    kept = torch.tensor([[0, 4], [2, 5]])
    tokens = encode_visible(encoder, images, kept)

    embedded = encoder.patch_embed(images)
    rows = [torch.stack([embedded[i, p] + encoder.pos_embed[0, 1 + p] for p in kept[i]]) for i in range(2)]
    start = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(2, -1, -1)
    expected = encoder.norm(encoder.blocks(torch.cat([start, torch.stack(rows)], dim=1)))
    torch.testing.assert_close(tokens, expected)

    hidden = images.clone()
    hidden[0, :, :2, 2:4] += 1  # patch 1 of the first image is not kept
    assert torch.equal(encode_visible(encoder, hidden, kept), tokens)


def test_gradient_checkpointing_changes_nothing():
    encoder = build_encoder(ViTSize(16, 3, 4, 2), image_size=(4, 4), num_channels=3)
    images, kept = torch.randn(2, 3, 4, 4), torch.tensor([[0, 2], [1, 3]])
    calls = []
    encoder.blocks[0].register_forward_pre_hook(lambda *_: calls.append(None))
    grads = []
    for enabled in (False, True):
        encoder.set_grad_checkpointing(enabled)
        encoder.zero_grad()
        encode_visible(encoder, images, kept).square().sum().backward()
        grads.append(encoder.patch_embed.proj.weight.grad.clone())
    assert torch.equal(*grads)
    assert len(calls) == 3  # once, then forward and again backward


def test_sizes_are_exactly_timms_vision_transformer_with_norms_of_1e_6():
    encoder = build_encoder("nano/4", image_size=(8, 12), num_channels=1)
    assert type(encoder) is VisionTransformer
    norms = [module for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 13
    assert {norm.eps for norm in norms} == {1e-6}
    assert isinstance(encoder.head, nn.Identity)


def test_the_final_norm_stands_before_pooling_whatever_the_name_says():
    with torch.device("meta"):
        assert isinstance(timm.create_model("beit3_base_patch16_224").norm, nn.Identity)
        encoder = build_encoder("beit3_base_patch16_224", image_size=(224, 224), num_channels=3)
    assert isinstance(encoder.norm, nn.LayerNorm)
    assert isinstance(encoder.fc_norm, nn.Identity)


@pytest.mark.parametrize("name", ["nano/4", "deit3_small_patch16_224"])
def test_positions_are_sincos_and_fixed(name):
    encoder = build_encoder(name, image_size=(32, 48), num_channels=3)
    num_prefix = 0 if encoder.no_embed_class else 1
    expected = sincos_positions(encoder.patch_embed.grid_size, encoder.embed_dim, num_prefix)
    assert torch.equal(encoder.pos_embed[0], expected)
    assert not encoder.pos_embed.requires_grad


def test_initialised_as_in_the_paper():
    encoder = build_encoder(ViTSize(64, 2, 4, 4, num_registers=2), image_size=(16, 16), num_channels=3)
    layers = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert len(layers) == 9
    for name, layer in layers.items():
        fan_out, fan_in = layer.weight.flatten(1).shape
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.97 * bound < layer.weight.abs().max() <= bound, name
        torch.testing.assert_close(layer.weight.std(), torch.tensor(bound / 3**0.5), rtol=0.05, atol=0)
        assert not layer.bias.any(), name
    for token in (encoder.cls_token, encoder.reg_token):
        assert 0.013 < token.std() < 0.027
    for norm in (module for module in encoder.modules() if isinstance(module, nn.LayerNorm)):
        assert (norm.weight == 1).all()
        assert not norm.bias.any()

import pytest

from mae_lightning.models import build_classifier, train_last_blocks

SWIN = "swin_tiny_patch4_window7_224"


def trained_names(num_blocks, encoder="nano/4", **settings):
    model = build_classifier(encoder, num_classes=7, image_size=(32, 32), num_channels=1, **settings)
    train_last_blocks(model, num_blocks)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_half_a_block_is_the_last_second_norm_and_mlp_with_final_norm_and_head():
    layers = ["blocks.5.norm2", "blocks.5.mlp.fc1", "blocks.5.mlp.fc2", "fc_norm", "head"]
    assert trained_names(0.5) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_one_block_has_all_of_its_parameters():
    layers = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    expected = {f"blocks.5.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert trained_names(1, pool="class") == expected | {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_no_block_leaves_the_head():
    assert trained_names(0, pool="class") == {"head.weight", "head.bias"}
    assert trained_names(0, norm_after_pool=False, batch_norm=True) == {"head.1.weight", "head.1.bias"}
    attentive = trained_names(0, pool="attentive")
    assert {name.split(".")[0] for name in attentive} == {"attn_pool", "head"}


def test_every_block_is_not_all():
    names = trained_names(6)
    assert "blocks.0.attn.qkv.weight" in names
    assert not names & {"patch_embed.proj.weight", "pos_embed", "cls_token"}
    assert {"patch_embed.proj.weight", "pos_embed", "cls_token"} <= trained_names("all")


def test_patch_merging_trains_only_between_blocks_that_train():
    assert not any("downsample" in name for name in trained_names(2, SWIN))  # the last stage's two blocks
    assert {name for name in trained_names(3, SWIN) if "downsample" in name} == {
        "layers.3.downsample.norm.weight",
        "layers.3.downsample.norm.bias",
        "layers.3.downsample.reduction.weight",
    }
    assert any(name.startswith("layers.2.blocks.5.") for name in trained_names(3, SWIN))
    assert not any(name.startswith("layers.2.blocks.4.") for name in trained_names(3, SWIN))


@pytest.mark.parametrize("num_blocks", [7, 1.5, -1])
def test_other_numbers_are_errors(num_blocks):
    with pytest.raises(ValueError, match=r"must be all, 0, 0.5 or a whole number up to the depth 6"):
        trained_names(num_blocks)

"""Layer-wise learning rates against loops written after the official fine-tuning recipes of MAE and SimMIM."""

import pytest

from mae_lightning.models import build_classifier
from mae_lightning.optim import layerwise_groups


def official_vit_groups(model, lr, weight_decay, decay, no_decay):
    """MAE's: (lr, weight decay) of each name; embedding at layer 0, block i at i + 1, all else at the top."""
    depth = len(model.blocks) + 1
    expected = {}
    for name, parameter in model.named_parameters():
        if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
            layer = 0
        elif name.startswith("blocks"):
            layer = int(name.split(".")[1]) + 1
        else:
            layer = depth
        plain = parameter.ndim == 1 or name in no_decay
        expected[name] = (lr * decay ** (depth - layer), 0.0 if plain else weight_decay)
    return expected


def official_swin_groups(model, lr, weight_decay, decay):
    """SimMIM's: two layers more than blocks; patch merging (timm: at a stage's start) goes with the block before."""
    depths = [len(stage.blocks) for stage in model.layers]
    scales = list(reversed([decay**power for power in range(sum(depths) + 2)]))
    expected = {}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        if words[0] == "patch_embed":
            layer = 0
        elif words[0] == "layers" and words[2] == "downsample":
            layer = sum(depths[: int(words[1])])
        elif words[0] == "layers":
            layer = sum(depths[: int(words[1])]) + int(words[3]) + 1
        else:
            layer = sum(depths) + 1
        plain = parameter.ndim == 1 or "relative_position_bias_table" in name
        expected[name] = (lr * scales[layer], 0.0 if plain else weight_decay)
    return expected


def approx(expected):
    return {name: pytest.approx(values, rel=1e-12) for name, values in expected.items()}


def ours(model, **settings):
    groups = layerwise_groups(model, no_decay=model.no_weight_decay(), **settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("encoder", ["nano/4", "tiny/8"])
def test_vit_equals_the_official_mapping(encoder, pool):
    model = build_classifier(encoder, num_classes=7, image_size=(16, 16), num_channels=3, pool=pool)
    expected = official_vit_groups(model, 1e-3, 0.05, 0.65, {"pos_embed", "cls_token"})
    assert ours(model, lr=1e-3, weight_decay=0.05, layer_decay=0.65) == approx(expected)


@pytest.mark.parametrize("encoder", ["swin_tiny_patch4_window7_224", "swin-nano/2"])
def test_swin_equals_the_official_mapping(encoder):
    """Blocks are counted over all stages, whatever their number."""
    model = build_classifier(encoder, num_classes=7, image_size=(64, 64), num_channels=3)
    expected = official_swin_groups(model, 1e-3, 0.05, 0.9)
    assert ours(model, lr=1e-3, weight_decay=0.05, layer_decay=0.9) == approx(expected)

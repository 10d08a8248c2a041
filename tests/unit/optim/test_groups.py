import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mae_lightning.optim import parameter_groups


def names(model: nn.Module, groups: list[dict]) -> dict[float, set[str]]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["weight_decay"]: {known[id(parameter)] for parameter in group["params"]} for group in groups}


def test_biases_and_norms_do_not_decay_and_tokens_do():
    model = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, reg_tokens=1, init_values=1e-5
    )
    model.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
    model.pos_embed.requires_grad = False
    groups = names(model, parameter_groups(model, 0.05))
    block = "blocks.0."
    weights = {f"{block}{layer}.weight" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert groups[0.05] == weights | {"patch_embed.proj.weight", "head.weight", "cls_token", "reg_token", "mask_token"}
    expected = {f"{block}{layer}.bias" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    expected |= {f"{block}{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    expected |= {
        f"{block}ls1.gamma",
        f"{block}ls2.gamma",
        "norm.weight",
        "norm.bias",
        "head.bias",
        "patch_embed.proj.bias",
    }
    assert groups[0.0] == expected


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = nn.Linear(2, 3)
    model.weight.requires_grad = False
    assert names(model, parameter_groups(model, 0.3)) == {0.0: {"bias"}}

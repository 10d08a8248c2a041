"""timm's models: by name through timm's own loader, and files that ``timm.create_model(checkpoint_path=...)`` loads."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import mae_lightning
from mae_lightning.models import SIZES, SwinSize, ViTSize
from mae_lightning.models.classifier import BATCH_NORM_EPS, POOLS
from mae_lightning.models.sizes import SWIN_PREFIX, named_size, named_swin
from mae_lightning.weights.building import HEADLESS, differences, encoder_of, headless
from mae_lightning.weights.card import CheckpointCard
from mae_lightning.weights.content import HEAD, Weights, size_from_shapes

SOURCES = ("timm/", "hf-hub:", "hf_hub:", "local-dir:")
NAMES = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 768: "vit_base_patch16_224"}
NAMES |= {1024: "vit_large_patch16_224", 1280: "vit_huge_patch14_224"}
SWIN = "swin_tiny_patch4_window7_224"


def is_timm_name(name: str) -> bool:
    """Whether timm has a model of that name, or a place to load it from."""
    return name.startswith(SOURCES) or bool(timm.is_model(name))


def open_timm(name: str, *, image_size: tuple[int, int] | None = None, pretrained: bool = True) -> Weights:
    """A model by its name, with the weights that timm has for it.

    Args:
        name: ``timm/NAME``, ``NAME``, ``hf-hub:...``, or ``local-dir:FOLDER``.
        image_size: Height and width; by default those of the weights. timm resamples positions for another.
        pretrained: False for fresh weights.

    Raises:
        ValueError: It cannot be had: the name is wrong, or there is no network.
    """
    bare = name.removeprefix("timm/")
    options: dict[str, Any] = {"img_size": image_size} if image_size and _is_fixed(bare) else {}
    try:
        model: Any = timm.create_model(bare, pretrained=pretrained, **options)
    except (RuntimeError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"timm cannot give {name}: {reason}") from error
    if not model.num_classes:
        model = headless(model)
    settings, state = model.pretrained_cfg, model.state_dict()
    above = _above_encoder(model) if model.num_classes else ()
    head = {key: value for key, value in state.items() if key.startswith(above)}
    card = CheckpointCard(
        objective="classification" if head else "unknown",
        encoder=_architecture(model, settings),
        decoder=None,
        target=None,
        image_size=image_size or tuple(settings["input_size"][1:]),
        num_channels=settings["input_size"][0],
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        package_version=mae_lightning.__version__,
        classifier=_classifier(model) if head else None,
    )
    encoder = {key: value for key, value in state.items() if key not in head}
    return Weights(name, "timm", encoder, head, card=card, built=model.eval())


def timm_call(weights: Weights) -> tuple[str, dict[str, Any]]:
    """Name and arguments with which ``timm.create_model`` builds this encoder or classifier.

    Raises:
        ValueError: timm has no model with a place for all of the weights.
    """
    card = weights.known
    options: dict[str, Any] = {"num_classes": (card.classifier or HEADLESS)["num_classes"] if weights.head else 0}
    size = sizes_of(encoder_of(card))
    if weights.built is not None and isinstance(card.encoder, str):
        name, changes = card.encoder, {}
        usual = timm.get_pretrained_cfg(name)
        if weights.is_plain_vit and (usual is None or card.image_size != usual.input_size[1:]):
            changes["img_size"] = card.image_size
    elif isinstance(size, str):
        name, changes = size, {"img_size": card.image_size}
    elif isinstance(size, SwinSize):
        name, changes = SWIN, _swin_options(size, card.image_size)
    else:
        name, changes = NAMES.get(size.dim, NAMES[768]), _vit_options(size)
        if card.image_size != (224, 224):
            changes["img_size"] = card.image_size
    if card.num_channels != 3:
        options["in_chans"] = card.num_channels
    if weights.is_plain_vit:
        pool = str((card.classifier or HEADLESS)["pool"]) if weights.head else "mean"
        options |= {"global_pool": POOLS[pool], "fc_norm": "fc_norm.weight" in weights.encoder}
    options = changes | options
    with torch.device("meta"):
        own = timm.create_model(name, **options).state_dict()
    if problems := differences(own, {**weights.encoder, **weights.head}):
        raise ValueError(f"timm's {name} has no place for the weights of {weights.source}: {problems}")
    return name, options


def sizes_of(encoder: str | ViTSize | SwinSize) -> str | ViTSize | SwinSize:
    """An encoder of ours by its sizes; timm's stay names."""
    if not isinstance(encoder, str):
        return encoder
    if encoder.startswith(SWIN_PREFIX):
        return named_swin(encoder)
    return named_size(encoder) if encoder.partition("/")[0] in SIZES else encoder


def plain_head(weights: Weights) -> Weights:
    """The same with a head that is one linear layer: in eval mode a BatchNorm before it is a scale and a shift."""
    for linear, norm in (("head.1", "head.0"), ("head.fc.1", "head.fc.0")):
        if f"{norm}.running_var" in weights.head:
            card = replace(weights.known, classifier={**(weights.known.classifier or {}), "batch_norm": False})
            return replace(weights, head=_folded(weights, linear, norm), card=card)
    return weights


def timm_model(weights: Weights, path: Path) -> nn.Module:
    """What a user of timm gets from the file that was written."""
    name, options = timm_call(weights)
    model: nn.Module = timm.create_model(name, checkpoint_path=path, **options)
    return model.eval()


def _architecture(model: Any, settings: Mapping[str, Any]) -> str | dict[str, Any]:
    """The model's name, or the sizes of a VisionTransformer that is not the one of that name."""
    name, state = str(settings["architecture"]), model.state_dict()
    with torch.device("meta"):
        named = timm.models.create_model(name, num_classes=model.num_classes).state_dict()
    sized = ("pos_embed", "patch_embed.proj.weight")
    same = all(key in named and (named[key].shape == value.shape or key in sized) for key, value in state.items())
    if not hasattr(model, "blocks") or (same and named.keys() == state.keys()):
        return name
    weights = Weights(name, "timm", state)
    return asdict(size_from_shapes(weights, model.blocks[0].attn.num_heads))


def _above_encoder(model: Any) -> tuple[str, ...]:
    """How the names of the tensors above the encoder begin."""
    classifier = model.get_classifier()
    return (*HEAD, *(f"{name}." for name, module in model.named_modules() if module is classifier))


def _classifier(model: Any) -> dict[str, Any]:
    pools = {theirs: ours for ours, theirs in POOLS.items()}
    pool = pools.get(getattr(model, "global_pool", ""), "mean")
    after = any(name.startswith("fc_norm.") for name in model.state_dict())
    return {"num_classes": model.num_classes, "pool": pool, "norm_after_pool": after, "batch_norm": False}


def _folded(weights: Weights, linear: str, norm: str) -> dict[str, Tensor]:
    head = {key: value for key, value in weights.head.items() if not key.startswith((f"{linear}.", f"{norm}."))}
    weight, bias = (weights.head[f"{linear}.{kind}"].double() for kind in ("weight", "bias"))
    scale = torch.rsqrt(weights.head[f"{norm}.running_var"].double() + BATCH_NORM_EPS)
    weight = weight * scale
    bias = bias - weight @ weights.head[f"{norm}.running_mean"].double()
    name, dtype = linear.removesuffix(".1"), weights.head[f"{linear}.weight"].dtype
    return head | {f"{name}.weight": weight.to(dtype), f"{name}.bias": bias.to(dtype)}


def _vit_options(size: ViTSize) -> dict[str, Any]:
    """What differs from the named model."""
    usual = next((other for other in SIZES.values() if other.dim == size.dim and other.dim in NAMES), SIZES["base"])
    values = {"embed_dim": "dim", "depth": "depth", "num_heads": "num_heads", "mlp_ratio": "mlp_ratio"}
    values |= {"patch_size": "patch_height_width", "class_token": "class_token", "reg_tokens": "num_registers"}
    asked = {option: getattr(size, name) for option, name in values.items()}
    return {option: value for option, value in asked.items() if value != getattr(usual, values[option])}


def _swin_options(size: SwinSize, image_size: tuple[int, int]) -> dict[str, Any]:
    options = {"embed_dim": size.dim, "depths": size.depths, "num_heads": size.heads, "mlp_ratio": size.mlp_ratio}
    return options | {"patch_size": size.patch_size, "window_size": size.window(image_size), "img_size": image_size}


def _is_fixed(name: str) -> bool:
    """Whether a model is built for one size of image."""
    settings = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return settings is None or bool(settings.fixed_input_size)

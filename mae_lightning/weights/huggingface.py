"""Hugging Face's folders of ViTMAE and ViT: ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``.

They are read and written without transformers. Tensors are written under the names of the released folders, which every
version of transformers reads.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mae_lightning.models import NormalizedPixels, Pixels, TransformerDecoder, ViTSize
from mae_lightning.weights.building import encoder_of, holding
from mae_lightning.weights.card import CheckpointCard, describe
from mae_lightning.weights.content import Said, Weights, completed, size_from_shapes
from mae_lightning.weights.files import read_checkpoint, read_safetensors, write_safetensors
from mae_lightning.weights.official import check_keys
from mae_lightning.weights.timm_models import sizes_of

CONFIG, PREPROCESSOR, TENSORS = "config.json", "preprocessor_config.json", "model.safetensors"
KINDS = {"vit_mae": "ViTMAE", "vit": "ViT"}
UNUSED = ("pooler.",)
"""What ViTModel adds for sentences' sake; no feature here passes through it."""
NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "classifier": "head",
    "decoder.mask_token": "mask_token",
    "decoder.decoder_pos_embed": "decoder_pos_embed",
    "decoder.decoder_embed": "decoder_embed",
    "decoder.decoder_norm": "decoder.norm",
    "decoder.decoder_pred": "decoder_pred",
}
"""Theirs and ours outside blocks."""
LAYERS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
"""The same inside a block."""
LAYERS_OF_VERSION_5 = {f"attention.{part}_proj": f"attn.{part}" for part in "qkv"} | {
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
BLOCK = re.compile(
    r"(?P<decoder>decoder\.)?(?:decoder_layers|decoder_encoder\.layer|encoder\.layer|layers)\.(?P<block>\d+)\.(?P<layer>.+)"
)


def read_folder(folder: Path, said: Said | None = None) -> Weights:
    """The weights of a ViTMAEForPreTraining, ViTMAEModel, ViTForImageClassification or ViTModel.

    Raises:
        ValueError: It is no such folder, or its configuration is of a model that this package does not have.
    """
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"{folder} is a Hugging Face folder of a '{kind}'; those of {' and '.join(KINDS)} are read")
    if config.get("hidden_act", "gelu") != "gelu" or not config.get("qkv_bias", True):
        raise ValueError(f"{folder} has another activation than gelu, or no biases of queries; timm's ViT has both")
    state = from_huggingface(_tensors(folder))
    decoder = {name: value for name, value in state.items() if name.startswith(("decoder", "mask_token"))}
    head = {name: value for name, value in state.items() if name.startswith("head.")}
    encoder = {name: value for name, value in state.items() if name not in decoder | head}
    return _with_card(Weights(str(folder), "hf", encoder, head, decoder), config, folder, said)


def from_huggingface(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names; queries, keys and values become one. Names that are not known pass unchanged."""
    ours: dict[str, Tensor] = {}
    for name, value in theirs.items():
        bare = name.removeprefix("vit.")
        if not bare.startswith(UNUSED):
            ours[_our_name(bare)] = value
    for name in [name for name in ours if re.search(r"\.attn\.q\.\w+$", name)]:
        parts = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if all(part in ours for part in parts):
            ours[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([ours.pop(part) for part in parts])
    return ours


def to_huggingface(weights: Weights) -> dict[str, Tensor]:
    """Tensors under the names of released folders.

    Raises:
        ValueError: The architecture has no place for some of them, or for a mean of patch tokens.
    """
    check_folder(weights)
    stem = {ours: theirs for theirs, ours in NAMES.items()}
    layers = {ours: theirs for theirs, ours in LAYERS.items()}
    prefix = "vit." if weights.has_decoder or weights.head else ""
    theirs: dict[str, Tensor] = {}
    for name, value in {**weights.encoder, **weights.decoder, **weights.head}.items():
        is_outside = name in weights.decoder or name in weights.head
        before = "" if is_outside else prefix
        match = re.fullmatch(r"(decoder\.)?blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if match is None:
            module, kind = (name, "") if name in stem else name.rsplit(".", 1)
            theirs[before + stem[module] + (f".{kind}" if kind else "")] = value
            continue
        _, block, layer, kind = match.groups()
        where = f"decoder.decoder_layers.{block}" if is_outside else f"{before}encoder.layer.{block}"
        parts = dict(zip("qkv", value.chunk(3), strict=True)) if layer == "attn.qkv" else {"": value}
        for part, tensor in parts.items():
            theirs[f"{where}.{layers[f'attn.{part}' if part else layer]}.{kind}"] = tensor
    return theirs


def check_folder(weights: Weights) -> None:
    """Refuses what the two architectures have no place for.

    Raises:
        ValueError: They have none.
    """
    _check_fit(weights)
    _config(weights)


def write_folder(weights: Weights, folder: Path) -> None:
    """Writes the folder that ``from_pretrained`` loads.

    Raises:
        ValueError: Hugging Face has no such architecture.
    """
    tensors = to_huggingface(weights)
    folder.mkdir()
    write_safetensors(tensors, None, folder / TENSORS)
    for name, content in ((CONFIG, _config(weights)), (PREPROCESSOR, _preprocessor(weights.known))):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def architecture_of(weights: Weights) -> str:
    """The class of transformers that such a folder is loaded by."""
    if weights.has_decoder:
        return "ViTMAEForPreTraining"
    return "ViTForImageClassification" if weights.head else "ViTModel"


def _our_name(theirs: str) -> str:
    match = BLOCK.fullmatch(theirs)
    if match is not None:
        layer, _, kind = match["layer"].rpartition(".")
        ours = (LAYERS | LAYERS_OF_VERSION_5).get(layer, layer)
        return f"{match['decoder'] or ''}blocks.{match['block']}.{ours}.{kind}"
    if theirs in NAMES:
        return NAMES[theirs]
    module, _, kind = theirs.rpartition(".")
    return f"{NAMES.get(module, module)}.{kind}"


def _check_fit(weights: Weights) -> None:
    card = weights.known
    if not weights.is_plain_vit:
        raise ValueError(f"Hugging Face's ViTMAE and ViT are plain ViTs, and {weights.source} holds {holding(weights)}")
    if weights.head and (card.classifier or {}).get("pool") != "class":
        raise ValueError(
            "Hugging Face's ViT classifies by the class token, and this classifier by another feature; use --to timm"
        )
    blocks = {name.split(".")[1] for name in weights.encoder if name.startswith("blocks.")}
    expected = {"cls_token", "pos_embed", *_modules("patch_embed.proj", "norm")}
    for block in blocks:
        inside = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        expected |= _modules(*(f"blocks.{block}.{layer}" for layer in inside))
    check_keys(weights.encoder, expected, "Hugging Face's ViT")
    check_keys(weights.head, _modules("head") if weights.head else [], "Hugging Face's ViT")


def _modules(*names: str) -> set[str]:
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


def _with_card(weights: Weights, config: Mapping[str, Any], folder: Path, said: Said | None) -> Weights:
    """Facts of the two JSON files; shapes tell the rest."""
    images = read_json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    given = said or Said()
    mean, std = (given.mean, given.std) if given.mean else (images.get("image_mean"), images.get("image_std"))
    try:
        weights = replace(weights, norm_eps=float(config.get("layer_norm_eps", 1e-12)))
        said = Said(
            num_heads=config["num_attention_heads"],
            decoder_num_heads=config.get("decoder_num_attention_heads", given.decoder_num_heads),
            made_for=_pair(config["image_size"]),
            mean=tuple(mean) if mean else None,
            std=tuple(std) if std else None,
        )
        names = config.get("id2label", {}) if weights.head else {}
        class_names = tuple(names[str(index)] for index in range(len(names)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} has a configuration that is damaged or none of a ViT: {error!r}") from error
    for name in ("num_heads", "decoder_num_heads", "made_for"):
        if getattr(given, name) not in (None, getattr(said, name)):
            raise ValueError(f"{folder} says {name} {getattr(said, name)}, not {getattr(given, name)}; leave it out")
    done = completed(weights, said)
    card = done.known
    if weights.head:
        card = replace(card, class_names=class_names or None)
    if weights.decoder:
        card = replace(card, target=describe(NormalizedPixels() if config.get("norm_pix_loss") else Pixels()))
    return replace(done, card=card, assumed=tuple(line for line in done.assumed if "target" not in line))


def _config(weights: Weights) -> dict[str, Any]:
    card = weights.known
    size = sizes_of(encoder_of(card))
    size = size if isinstance(size, ViTSize) else size_from_shapes(weights)
    height, width = size.patch_height_width
    kind = "vit_mae" if weights.has_decoder else "vit"
    config: dict[str, Any] = {
        "architectures": [architecture_of(weights)],
        "model_type": kind,
        "hidden_size": size.dim,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.num_heads,
        "intermediate_size": round(size.dim * size.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": weights.norm_eps or 1e-6,
        "image_size": card.image_size[0] if card.image_size[0] == card.image_size[1] else list(card.image_size),
        "patch_size": height if height == width else [height, width],
        "num_channels": card.num_channels,
        "qkv_bias": True,
        "torch_dtype": "float32",
    }
    return config | (_decoder_config(card) if weights.has_decoder else {}) | _labels(card)


def _decoder_config(card: CheckpointCard) -> dict[str, Any]:
    described, target = card.decoder or {}, card.target or {}
    if described.get("class_path") != f"{TransformerDecoder.__module__}.{TransformerDecoder.__qualname__}":
        raise ValueError(f"Hugging Face's ViTMAE has no place for the decoder {described.get('class_path')}")
    settings = card.masked_model or {}
    if settings.get("mask_token_in_encoder") or settings.get("loss_on", "masked") != "masked":
        raise ValueError(
            "Hugging Face's ViTMAE has no mask tokens in its encoder, and its loss on masked patches; this model is"
            f" otherwise ({settings}): use --encoder-only"
        )
    decoder = described["init_args"]
    kinds = {f"{kind.__module__}.{kind.__qualname__}": kind is NormalizedPixels for kind in (Pixels, NormalizedPixels)}
    if target.get("class_path") not in kinds:
        raise ValueError(f"Hugging Face's ViTMAE has no place for the target {target.get('class_path')}")
    return {
        "decoder_num_attention_heads": decoder["num_heads"],
        "decoder_hidden_size": decoder["dim"],
        "decoder_num_hidden_layers": decoder["depth"],
        "decoder_intermediate_size": round(decoder["dim"] * decoder["mlp_ratio"]),
        "mask_ratio": 0.75,
        "norm_pix_loss": kinds[target["class_path"]],
    }


def _labels(card: CheckpointCard) -> dict[str, Any]:
    if not card.classifier:
        return {}
    names = card.class_names or [f"LABEL_{index}" for index in range(card.classifier["num_classes"])]
    return {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _preprocessor(card: CheckpointCard) -> dict[str, Any]:
    height, width = card.image_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(card.mean),
        "image_std": list(card.std),
        "do_resize": True,
        "resample": 3,
        "size": {"height": height, "width": width},
    }


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors, from one file or several."""
    index, pickled = folder / f"{TENSORS}.index.json", folder / "pytorch_model.bin"
    if index.is_file():
        files = sorted(set(read_json(index)["weight_map"].values()))
        return {name: value for file in files for name, value in read_safetensors(folder / Path(file).name)[0].items()}
    if not (folder / TENSORS).is_file() and pickled.is_file():
        return read_checkpoint(pickled)
    return read_safetensors(folder / TENSORS)[0]


def read_json(path: Path) -> dict[str, Any]:
    """The dictionary in a JSON file.

    Raises:
        ValueError: There is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no configuration: it holds a {type(content).__name__}")
    return content


def _pair(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])

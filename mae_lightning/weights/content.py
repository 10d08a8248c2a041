"""What a file of weights holds, whatever its format: the one shape that every format is read into and written from."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

import mae_lightning
from mae_lightning.models import SIZES, NormalizedPixels, TransformerDecoder, ViTSize
from mae_lightning.weights.card import CheckpointCard, describe

HEAD = ("head.", "attn_pool.")
"""What a classifier has above its encoder, and never takes from another model."""
NUM_HEADS = {size.dim: size.num_heads for size in SIZES.values()}
OFFICIAL_DECODER = {512: 16}
"""Attention heads by width: no tensor's shape tells them."""


@dataclass(frozen=True)
class Weights:
    """Tensors under timm's and MaskedAutoencoder's names, and what is known of them.

    Attributes:
        source: The file, folder or name.
        format: Which format it has: a row of the table of formats.
        encoder: The encoder under timm's names.
        head: Of a classifier, what stands above it, under timm's names.
        decoder: The rest of a masked autoencoder, under MaskedAutoencoder's names.
        card: What is known; None until :func:`completed` for files that say nothing.
        trained: Epoch and step, where the file says them.
        assumed: What was taken for granted about a file that does not say it.
        norm_eps: Epsilon of the layer norms, where it is not the model's usual one.
        built: The model itself, where timm built it.
    """

    source: str
    format: str
    encoder: Mapping[str, Tensor]
    head: Mapping[str, Tensor] = field(default_factory=dict)
    decoder: Mapping[str, Tensor] = field(default_factory=dict)
    card: CheckpointCard | None = None
    trained: Mapping[str, int] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    norm_eps: float | None = None
    built: nn.Module | None = None

    @property
    def known(self) -> CheckpointCard:
        """The card of weights that were completed."""
        assert self.card is not None
        return self.card

    @property
    def has_decoder(self) -> bool:
        """Whether they can reconstruct."""
        return bool(self.decoder)

    @property
    def is_plain_vit(self) -> bool:
        """Whether the encoder is a VisionTransformer with absolute positions."""
        return "pos_embed" in self.encoder and "blocks.0.mlp.fc1.weight" in self.encoder

    @property
    def without_decoder(self) -> "Weights":
        """The encoder, or the classifier, alone."""
        card = self.card and replace(self.card, decoder=None, target=None)
        return replace(self, decoder={}, card=card)


@dataclass(frozen=True)
class Said:
    """What the user says of a foreign file that does not say it itself.

    Attributes:
        num_heads: Attention heads of an encoder's block.
        decoder_num_heads: Attention heads of a decoder's block.
        made_for: Height and width of the images in pixels.
        mean: Mean of each channel, pixels in 0 to 1.
        std: Standard deviation of each channel.

    Raises:
        ValueError: Mean and deviation are not of as many channels, or a deviation is not above 0.
    """

    num_heads: int | None = None
    decoder_num_heads: int | None = None
    made_for: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError(
                f"mean {self.mean} and std {self.std} (--mean, --std) go together, one number of each for every channel"
            )
        if min(self.std or (1.0,)) <= 0:
            raise ValueError(f"std {self.std} must be above 0")


def completed(weights: Weights, said: Said | None = None) -> Weights:
    """The weights with a card: their own, or one read off the shapes of a plain VisionTransformer.

    Raises:
        ValueError: Something that no shape tells was not said: heads of an unusual width, the sides of a grid that is
            not square, mean and deviation of channels that are not three. Or something was said that is known.
    """
    said = said or Said()
    if weights.card is not None:
        if said != Said() and weights.format != "hf":
            raise ValueError(f"{weights.source} says of itself what it is; leave heads, sizes, mean and deviation out")
        return weights
    size = size_from_shapes(weights, said.num_heads)
    mean, std, assumed = _moments(weights, said)
    decoder = describe(_decoder(weights, said.decoder_num_heads)) if weights.decoder else None
    if decoder:
        assumed += ("normalised pixels as the target",)
    card = CheckpointCard(
        objective="classification" if weights.head else "mae" if weights.decoder else "unknown",
        encoder=asdict(size),
        decoder=decoder,
        target=describe(NormalizedPixels()) if decoder else None,
        image_size=said.made_for or _square_images(weights, size),
        num_channels=weights.encoder["patch_embed.proj.weight"].shape[1],
        mean=mean,
        std=std,
        package_version=mae_lightning.__version__,
        classifier=_classifier(weights) if weights.head else None,
    )
    return replace(weights, card=card, assumed=weights.assumed + assumed)


def size_from_shapes(weights: Weights, num_heads: int | None = None) -> ViTSize:
    """The sizes of a plain VisionTransformer.

    Raises:
        ValueError: It is none, or its heads are neither known by its width nor said.
    """
    state = weights.encoder
    if "patch_embed.proj.weight" not in state or "blocks.0.mlp.fc1.weight" not in state:
        raise ValueError(
            f"{weights.source} holds no plain VisionTransformer and does not say what it holds; give the"
            " checkpoint of this package that it was made from, or the timm name"
        )
    dim, _, *patch = state["patch_embed.proj.weight"].shape
    heads = num_heads or NUM_HEADS.get(dim)
    if heads is None:
        raise ValueError(f"{weights.source} does not say how many attention heads its width {dim} has; add --num-heads")
    return ViTSize(
        dim,
        depth=count_blocks(state, "blocks"),
        num_heads=heads,
        patch_size=(patch[0], patch[1]),
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        class_token="cls_token" in state,
        num_registers=state["reg_token"].shape[1] if "reg_token" in state else 0,
    )


def num_positions(encoder: Mapping[str, Tensor]) -> tuple[int, int]:
    """Position embeddings of prefix tokens, and of patches, in an encoder of any grid."""
    prefix = sum(encoder[name].shape[1] for name in ("cls_token", "reg_token") if name in encoder)
    return prefix, encoder["pos_embed"].shape[1] - prefix


def _square_images(weights: Weights, size: ViTSize) -> tuple[int, int]:
    if "pos_embed" not in weights.encoder:
        raise ValueError(f"{weights.source} does not fit the model: missing pos_embed")
    _, patches = num_positions(weights.encoder)
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(
            f"{weights.source} does not say how its {patches} patches lie; add --made-for HEIGHT WIDTH, in pixels"
        )
    return side * size.patch_height_width[0], side * size.patch_height_width[1]


def _moments(weights: Weights, said: Said) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    channels = weights.encoder["patch_embed.proj.weight"].shape[1]
    if said.mean is not None and said.std is not None:
        if len(said.mean) != channels:
            raise ValueError(f"{weights.source} has {channels} channels, and the mean has {len(said.mean)}")
        return said.mean, said.std, ()
    if channels != 3:
        raise ValueError(
            f"{weights.source} says no mean and deviation for {channels} channels; add --mean and --std, pixels 0 to 1"
        )
    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ("ImageNet's mean and deviation",)


def _decoder(weights: Weights, num_heads: int | None) -> TransformerDecoder:
    dim, depth = weights.decoder["decoder_embed.weight"].shape[0], count_blocks(weights.decoder, "decoder.blocks")
    heads = num_heads or OFFICIAL_DECODER.get(dim)
    if heads is None:
        raise ValueError(
            f"{weights.source} does not say how many attention heads its decoder of width {dim} has;"
            " add --decoder-num-heads"
        )
    ratio = weights.decoder["decoder.blocks.0.mlp.fc1.weight"].shape[0] / dim if depth else 4.0
    return TransformerDecoder(depth=depth, dim=dim, num_heads=heads, mlp_ratio=ratio)


def _classifier(weights: Weights) -> dict[str, object]:
    after = "fc_norm.weight" in weights.encoder
    attentive = any(name.startswith("attn_pool.") for name in weights.head)
    pool = "attentive" if attentive else "mean" if after else "class"
    linear = weights.head.get("head.weight", weights.head.get("head.1.weight"))
    if linear is None:
        raise ValueError(f"{weights.source} does not fit the model: missing head.weight")
    batch_norm = "head.1.weight" in weights.head
    return {"num_classes": len(linear), "pool": pool, "norm_after_pool": after, "batch_norm": batch_norm}


def count_blocks(names: Iterable[str], prefix: str) -> int:
    """Blocks up to the highest index that occurs, so that a gap shows as missing keys."""
    matches = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in matches if match), default=0)

"""Masked models in plain torch and timm: masking, patches, targets, masked, encoder, decoder, mae, swin, simmim."""

from mae_lightning.models.classifier import Classifier, Pool, build_classifier, has_drop_path
from mae_lightning.models.decoder import Decoder, TransformerDecoder
from mae_lightning.models.encoder import build_encoder, encode_visible
from mae_lightning.models.mae import MaskedAutoencoder
from mae_lightning.models.mask_patterns import BlockMasking, GridMasking
from mae_lightning.models.masked import MaskedModel, MaskedOutput
from mae_lightning.models.masking import (
    MaskSampler,
    PatchMask,
    RandomMasking,
    gather_tokens,
    more_noise,
    num_kept_patches,
    place_tokens,
    sample_noise,
)
from mae_lightning.models.normalization import Normalization
from mae_lightning.models.patches import patch_grid, patchify, unpatchify
from mae_lightning.models.positions import sincos_positions
from mae_lightning.models.simmim import AbsolutePixels, SimMIM
from mae_lightning.models.sizes import SIZES, SWIN_SIZES, SwinSize, ViTSize, explicit_size
from mae_lightning.models.swin import build_swin, is_swin, resample_positions
from mae_lightning.models.targets import NormalizedPixels, Pixels, Target
from mae_lightning.models.trainable import TrainableBlocks, train_last_blocks

__all__ = [
    "SIZES",
    "SWIN_SIZES",
    "AbsolutePixels",
    "BlockMasking",
    "Classifier",
    "Decoder",
    "GridMasking",
    "MaskSampler",
    "MaskedAutoencoder",
    "MaskedModel",
    "MaskedOutput",
    "Normalization",
    "NormalizedPixels",
    "PatchMask",
    "Pixels",
    "Pool",
    "RandomMasking",
    "SimMIM",
    "SwinSize",
    "Target",
    "TrainableBlocks",
    "TransformerDecoder",
    "ViTSize",
    "build_classifier",
    "build_encoder",
    "build_swin",
    "encode_visible",
    "explicit_size",
    "gather_tokens",
    "has_drop_path",
    "is_swin",
    "more_noise",
    "num_kept_patches",
    "patch_grid",
    "patchify",
    "place_tokens",
    "resample_positions",
    "sample_noise",
    "sincos_positions",
    "train_last_blocks",
    "unpatchify",
]

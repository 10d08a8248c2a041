"""Masked autoencoders in plain torch and timm; read masking, patches, encoder, decoder, targets, mae."""

from mae_lightning.models.classifier import Classifier, Pool, build_classifier, has_drop_path, is_swin
from mae_lightning.models.decoder import Decoder, TransformerDecoder
from mae_lightning.models.encoder import build_encoder, encode_visible
from mae_lightning.models.mae import MAEOutput, MaskedAutoencoder
from mae_lightning.models.masking import (
    MaskSampler,
    PatchMask,
    RandomMasking,
    gather_tokens,
    num_kept_patches,
    sample_noise,
)
from mae_lightning.models.normalization import Normalization
from mae_lightning.models.patches import patch_grid, patchify, unpatchify
from mae_lightning.models.positions import sincos_positions
from mae_lightning.models.sizes import SIZES, ViTSize
from mae_lightning.models.targets import NormalizedPixels, Pixels, Target
from mae_lightning.models.trainable import TrainableBlocks, train_last_blocks

__all__ = [
    "SIZES",
    "Classifier",
    "Decoder",
    "MAEOutput",
    "MaskSampler",
    "MaskedAutoencoder",
    "Normalization",
    "NormalizedPixels",
    "PatchMask",
    "Pixels",
    "Pool",
    "RandomMasking",
    "Target",
    "TrainableBlocks",
    "TransformerDecoder",
    "ViTSize",
    "build_classifier",
    "build_encoder",
    "encode_visible",
    "gather_tokens",
    "has_drop_path",
    "is_swin",
    "num_kept_patches",
    "patch_grid",
    "patchify",
    "sample_noise",
    "sincos_positions",
    "train_last_blocks",
    "unpatchify",
]

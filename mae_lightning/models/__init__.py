"""Masked models in plain torch and timm: masking, patches, targets, masked, encoder, decoder, mae, swin, simmim."""

from mae_lightning.models.attention import Attention, fuse_attention
from mae_lightning.models.blocks import repeated_blocks
from mae_lightning.models.classifier import Classifier, Pool, build_classifier, has_drop_path, no_weight_decay
from mae_lightning.models.cost import step_flops
from mae_lightning.models.cross_decoder import CrossAttentionDecoder
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
from mae_lightning.models.positions import raster_sincos_positions, sincos_positions
from mae_lightning.models.principal import PatchPCA, patch_sums
from mae_lightning.models.simmim import AbsolutePixels, SimMIM
from mae_lightning.models.sizes import SIZES, SWIN_SIZES, SwinSize, ViTSize, explicit_size
from mae_lightning.models.swin import build_swin, is_swin, resample_positions
from mae_lightning.models.targets import NormalizedPixels, Pixels, Target
from mae_lightning.models.tokenizer import DiscreteVAE, load_tokenizer, save_tokenizer
from mae_lightning.models.tokens import Tokenizer, Tokens
from mae_lightning.models.trainable import TrainableBlocks, train_last_blocks
from mae_lightning.models.variants import BlockNorm, Positions, PositionsAt

__all__ = [
    "SIZES",
    "SWIN_SIZES",
    "AbsolutePixels",
    "Attention",
    "BlockMasking",
    "BlockNorm",
    "Classifier",
    "CrossAttentionDecoder",
    "Decoder",
    "DiscreteVAE",
    "GridMasking",
    "MaskSampler",
    "MaskedAutoencoder",
    "MaskedModel",
    "MaskedOutput",
    "Normalization",
    "NormalizedPixels",
    "PatchMask",
    "PatchPCA",
    "Pixels",
    "Pool",
    "Positions",
    "PositionsAt",
    "RandomMasking",
    "SimMIM",
    "SwinSize",
    "Target",
    "Tokenizer",
    "Tokens",
    "TrainableBlocks",
    "TransformerDecoder",
    "ViTSize",
    "build_classifier",
    "build_encoder",
    "build_swin",
    "encode_visible",
    "explicit_size",
    "fuse_attention",
    "gather_tokens",
    "has_drop_path",
    "is_swin",
    "load_tokenizer",
    "more_noise",
    "no_weight_decay",
    "num_kept_patches",
    "patch_grid",
    "patch_sums",
    "patchify",
    "place_tokens",
    "raster_sincos_positions",
    "repeated_blocks",
    "resample_positions",
    "sample_noise",
    "save_tokenizer",
    "sincos_positions",
    "step_flops",
    "train_last_blocks",
    "unpatchify",
]

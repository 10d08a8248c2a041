"""Weights in and out, and what a checkpoint says of itself."""

from mae_lightning.weights.card import CARD_KEY, CheckpointCard, describe
from mae_lightning.weights.encoders import PretrainedEncoder, read_encoder
from mae_lightning.weights.loading import load_pretrained, read_checkpoint

__all__ = [
    "CARD_KEY",
    "CheckpointCard",
    "PretrainedEncoder",
    "describe",
    "load_pretrained",
    "read_checkpoint",
    "read_encoder",
]

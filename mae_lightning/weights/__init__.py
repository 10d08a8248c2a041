"""Weights in and out, and what a checkpoint says of itself.

Read content (what a file holds), opening (the way in), then converting (the table of what goes where).
"""

from mae_lightning.weights.card import CARD_KEY, FLOPS_KEY, CheckpointCard, describe
from mae_lightning.weights.encoders import PretrainedEncoder, load_encoder, read_encoder
from mae_lightning.weights.files import read_checkpoint
from mae_lightning.weights.loading import load_pretrained
from mae_lightning.weights.sharded import is_sharded

__all__ = [
    "CARD_KEY",
    "FLOPS_KEY",
    "CheckpointCard",
    "PretrainedEncoder",
    "describe",
    "is_sharded",
    "load_encoder",
    "load_pretrained",
    "read_checkpoint",
    "read_encoder",
]

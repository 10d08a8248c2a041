"""Figures: first as arrays, then as files."""

from mae_lightning.pictures.masks import mask_kinds
from mae_lightning.pictures.reconstructions import Reconstructions, reconstruct
from mae_lightning.pictures.sheet import draw_sheet

__all__ = ["Reconstructions", "draw_sheet", "mask_kinds", "reconstruct"]

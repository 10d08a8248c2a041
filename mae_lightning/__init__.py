"""Masked autoencoders for vision transformers, on PyTorch Lightning."""

__version__ = "0.1.0"

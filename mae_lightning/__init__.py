"""Masked autoencoders for vision transformers, on PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mae_lightning.weights import load_encoder

__all__ = ["__version__", "load_encoder"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports torch only for what needs it."""
    if name == "load_encoder":
        from mae_lightning.weights import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""How a run spreads over processes, and how its state comes to disk."""

from mae_lightning.strategies.fully_sharded import FullySharded
from mae_lightning.strategies.replicated import Replicated

__all__ = ["FullySharded", "Replicated"]

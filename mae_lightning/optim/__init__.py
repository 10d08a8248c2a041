"""Learning rates, schedules and parameter groups, in plain torch."""

from mae_lightning.optim.adamw import build_adamw
from mae_lightning.optim.groups import parameter_groups
from mae_lightning.optim.lars import build_lars
from mae_lightning.optim.layer_decay import layerwise_groups
from mae_lightning.optim.scaling import scaled_lr
from mae_lightning.optim.schedules import warmup_cosine

__all__ = ["build_adamw", "build_lars", "layerwise_groups", "parameter_groups", "scaled_lr", "warmup_cosine"]

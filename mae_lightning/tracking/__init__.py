"""Where a run's figures and pictures go: metrics.csv always, Weights & Biases beside it."""

from mae_lightning.tracking.loggers import build_loggers, log_picture, log_summary, watch_node
from mae_lightning.tracking.tables import log_table

__all__ = ["build_loggers", "log_picture", "log_summary", "log_table", "watch_node"]

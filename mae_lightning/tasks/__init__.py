"""The LightningModules: what is trained, and how."""

from mae_lightning.tasks.classify import Classification
from mae_lightning.tasks.masked import MaskedPretraining
from mae_lightning.tasks.pretrain import MAEPretraining
from mae_lightning.tasks.simmim import SimMIMPretraining
from mae_lightning.tasks.task import Task

__all__ = ["Classification", "MAEPretraining", "MaskedPretraining", "SimMIMPretraining", "Task"]

"""The LightningModules: what is trained, and how."""

from mae_lightning.tasks.classify import Classification
from mae_lightning.tasks.device_crop import DeviceCropFlip
from mae_lightning.tasks.masked import MaskedPretraining
from mae_lightning.tasks.pretrain import MAEPretraining
from mae_lightning.tasks.simmim import SimMIMPretraining
from mae_lightning.tasks.task import Task
from mae_lightning.tasks.tokenizer import TokenizerTraining

__all__ = [
    "Classification",
    "DeviceCropFlip",
    "MAEPretraining",
    "MaskedPretraining",
    "SimMIMPretraining",
    "Task",
    "TokenizerTraining",
]

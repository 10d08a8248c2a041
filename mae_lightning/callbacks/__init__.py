"""What happens around training: the run's table, its pace, its pictures and its probes."""

from mae_lightning.callbacks.blocks import ActivationCheckpointing, CompiledBlocks
from mae_lightning.callbacks.confusion import ConfusionMatrix
from mae_lightning.callbacks.defaults import default_callbacks
from mae_lightning.callbacks.ema import WeightEMA
from mae_lightning.callbacks.figures import FigurePictures
from mae_lightning.callbacks.finite import FiniteNumbers
from mae_lightning.callbacks.goodput import Goodput
from mae_lightning.callbacks.knn import KNNProbe
from mae_lightning.callbacks.left_out import LeftOutSteps
from mae_lightning.callbacks.node_metrics import NodeMetrics
from mae_lightning.callbacks.preemption import Preemption
from mae_lightning.callbacks.reconstructions import ReconstructionPictures
from mae_lightning.callbacks.resumed import SeamlessLog
from mae_lightning.callbacks.skipped import SkippedSamples
from mae_lightning.callbacks.summary import RunSummary
from mae_lightning.callbacks.throughput import Throughput
from mae_lightning.callbacks.time_limits import TimeLimits
from mae_lightning.callbacks.tokenizer_file import TokenizerFile

__all__ = [
    "ActivationCheckpointing",
    "CompiledBlocks",
    "ConfusionMatrix",
    "FigurePictures",
    "FiniteNumbers",
    "Goodput",
    "KNNProbe",
    "LeftOutSteps",
    "NodeMetrics",
    "Preemption",
    "ReconstructionPictures",
    "RunSummary",
    "SeamlessLog",
    "SkippedSamples",
    "Throughput",
    "TimeLimits",
    "TokenizerFile",
    "WeightEMA",
    "default_callbacks",
]

"""k-NN accuracy of the frozen features while training goes on."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int64
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from mae_lightning.data import Batch, data_of
from mae_lightning.evaluation.knn import knn_predict
from mae_lightning.tasks import MaskedPretraining

Extract = Callable[[Tensor], Tensor]
Labelled = tuple[Float[Tensor, "sample dim"], Int64[Tensor, "sample"]]


class KNNProbe(Callback):
    """Logs k-NN accuracy on the held-out images at each validation, from a seeded bank of training images.

    The feature is the mean patch token after the final norm; cosine similarity, k = 20, temperature 0.07. Raw pixels
    and the encoder as it starts are measured once: without them the figure says little. On ImageNet k-NN is low for
    masked autoencoders even where fine-tuning is excellent. Off, and says so, where there are no labels.

    Args:
        max_bank: Largest number of training images in the bank.
        every_n_validations: Validations between two measurements.
    """

    def __init__(self, max_bank: int = 20_000, every_n_validations: int = 1) -> None:
        self.max_bank, self.every_n_validations = max_bank, every_n_validations
        self.baselines: dict[str, float] = {}
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        """The figures measured once, which a resumed run cannot measure again, and the validations so far."""
        return {"baselines": self.baselines, "validations": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them back."""
        self.baselines, self._count = state_dict["baselines"], state_dict.get("validations", 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures raw pixels and the encoder as it starts."""
        assert isinstance(pl_module, MaskedPretraining)
        if not self._has_labels(trainer):
            rank_zero_only(print)("k-NN probe: off, the training or the held-out images have no labels")
            return
        if not self.baselines:
            self.baselines = {
                "val/knn_raw_pixels": self._accuracy(trainer, pl_module, lambda image: _flat(pl_module, image)),
                "val/knn_untrained": self._accuracy(trainer, pl_module, pl_module.features),
            }

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the encoder as it is now."""
        assert isinstance(pl_module, MaskedPretraining)
        if trainer.sanity_checking or not self._has_labels(trainer):
            return
        self._count += 1
        if (self._count - 1) % self.every_n_validations == 0:
            accuracy = self._accuracy(trainer, pl_module, pl_module.features)
            pl_module.log_dict(self.baselines)
            pl_module.log("val/knn", accuracy, prog_bar=True)

    @staticmethod
    def _has_labels(trainer: Trainer) -> bool:
        data = data_of(trainer)
        if data is None or not {"train", "val"} <= data.sources.keys():
            return False
        return all(data.sources[split].manifest.is_labelled for split in ("train", "val"))

    def _accuracy(self, trainer: Trainer, task: MaskedPretraining, extract: Extract) -> float:
        data = data_of(trainer)
        assert data is not None
        assert data.num_classes is not None
        was_training = task.training
        task.eval()
        bank, queries = (self._gather(task, loader, extract) for loader in data.probe_loaders(self.max_bank))
        task.train(was_training)
        predicted = knn_predict(*bank, queries[0], num_classes=data.num_classes)
        return float((predicted == queries[1]).float().mean())

    @staticmethod
    @torch.no_grad()
    def _gather(task: MaskedPretraining, loader: Iterable[Batch], extract: Extract) -> Labelled:
        """Features and labels of all processes' samples, padding left out; each process has as many rows."""
        features, labels = [], []
        for batch in loader:
            features.append(extract(batch["image"].to(task.device)).float())
            labels.append(torch.where(batch["valid"], batch["label"], -1).to(task.device))
        everything = task.all_gather((torch.cat(features), torch.cat(labels)))
        all_features, all_labels = everything[0].flatten(0, -2), everything[1].flatten()
        counted = all_labels >= 0
        return all_features[counted], all_labels[counted]


def _flat(task: MaskedPretraining, images: Tensor) -> Tensor:
    pixels: Tensor = task.normalize(images)
    return pixels.flatten(1)

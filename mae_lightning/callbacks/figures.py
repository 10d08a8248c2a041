"""Chosen figures of the model while training goes on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.callbacks.reconstructions import spread_evenly
from mae_lightning.data import ShardDataModule, data_of
from mae_lightning.pictures.gallery import FIGURES
from mae_lightning.pictures.style import NotDrawnError, write_figure
from mae_lightning.pictures.subject import Model, Subject
from mae_lightning.tasks import MaskedPretraining
from mae_lightning.tasks.masked import HELD_OUT_SEED
from mae_lightning.tracking import log_picture
from mae_lightning.tracking.unfailing import Unfailing


class FigurePictures(Callback):
    """Draws figures of the held-out images at validations, into the run's folder and to W&B; off unless asked for.

    A figure that does not apply to the model is named once, with the reason.

    Args:
        which: Names of figures, as of the command ``figures``: reconstructions, ratios, masks, filters, positions,
            attention_distance, attention, features, sincos.
        num_images: Images drawn, spread evenly over the held-out set.
        num_statistics: Likewise images of attention's statistics.
        every_n_validations: Validations between two drawings.

    Raises:
        ValueError: There is no such figure.
    """

    def __init__(
        self,
        which: Sequence[str] = ("attention_distance", "filters", "features"),
        num_images: int = 6,
        num_statistics: int = 64,
        every_n_validations: int = 1,
    ) -> None:
        for name in which:
            if name not in FIGURES:
                raise ValueError(f"no figure is called '{name}'; there are {', '.join(FIGURES)}")
        self.which, self.num_images, self.num_statistics = tuple(which), num_images, num_statistics
        self.every_n_validations = every_n_validations
        self._count, self._named = 0, set[str]()
        self._unfailing = Unfailing("drawing figures")

    def state_dict(self) -> dict[str, int]:
        """The validations so far."""
        return {"validations": self._count}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Takes them back."""
        self._count = state_dict["validations"]

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, unless this is the sanity check before training; every process computes, the first one writes."""
        assert isinstance(pl_module, MaskedPretraining)
        data = data_of(trainer)
        if trainer.sanity_checking or data is None:
            return
        self._count += 1
        if (self._count - 1) % self.every_n_validations:
            return
        subject = self._subject(data, pl_module)
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "pictures"
        for name in self.which:
            try:
                figure = FIGURES[name].draw(subject)
            except NotDrawnError as reason:
                if trainer.is_global_zero and name not in self._named:
                    print(f"{name}: not drawn: {reason}")
                self._named.add(name)
                continue
            if not trainer.is_global_zero:
                continue
            with self._unfailing:
                (path,) = write_figure(figure, folder, f"{name}-step{trainer.global_step:07d}", [".png"])
                log_picture(trainer.loggers, f"figures/{name}", path, trainer.global_step)

    def _subject(self, data: ShardDataModule, task: MaskedPretraining) -> Subject:
        places = data.sources["val"].manifest.place
        few, many = (
            data.samples("val", places[spread_evenly(len(places), wanted)].tolist())
            for wanted in (self.num_images, self.num_statistics)
        )
        images, many_images = (task.normalize(batch["image"].to(task.device)) for batch in (few, many))
        name = f"{task.encoder_name} {task.title}, epoch {task.current_epoch + 1}"
        model = Model(name, task.model.encoder, task.model, "", task.normalize, task.card())
        index = few["index"].to(task.device)
        return Subject(model, "held-out images", images, index, many_images, task.mask_ratio, HELD_OUT_SEED)

"""What is done every n-th validation is done at the same ones when a run goes on from a checkpoint."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from mae_lightning.callbacks import FigurePictures, KNNProbe
from mae_lightning.models import TransformerDecoder
from mae_lightning.tasks import MAEPretraining


def knn(found: list[str], monkeypatch: pytest.MonkeyPatch) -> Callback:
    monkeypatch.setattr(KNNProbe, "_has_labels", staticmethod(lambda _: True))
    monkeypatch.setattr(KNNProbe, "_accuracy", lambda *_: found.append("k-NN") or 0.5)
    return KNNProbe(every_n_validations=2)


def figures(found: list[str], monkeypatch: pytest.MonkeyPatch) -> Callback:
    monkeypatch.setattr("mae_lightning.callbacks.figures.data_of", lambda _: "data")
    monkeypatch.setattr(FigurePictures, "_subject", lambda *_: found.append("figures"))
    return FigurePictures(which=(), every_n_validations=2)


@pytest.mark.parametrize("make", [knn, figures])
def test_a_run_that_goes_on_keeps_the_beat(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        task = MAEPretraining("nano/4", TransformerDecoder(depth=1, dim=16, num_heads=2), image_size=(16, 16))
    monkeypatch.setattr(task, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    found: list[str] = []
    callback, measured = make(found, monkeypatch), []
    for validation in range(6):
        callback.on_validation_epoch_end(trainer, task)
        measured.append(len(found))
        if validation in (0, 3):
            again = make(found, monkeypatch)
            again.load_state_dict(callback.state_dict())
            callback = again
    assert measured == [1, 1, 2, 2, 3, 3]

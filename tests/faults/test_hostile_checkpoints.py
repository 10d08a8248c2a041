"""R7, 1 to 9: a checkpoint from a stranger runs nothing, whichever way it comes in.

What hides in the folder of a checkpoint in shards has more cases in tests/unit/weights/test_sharded.py.
"""

import functools
import http.server
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from mae_lightning.__main__ import main
from mae_lightning.models import Tokens, TransformerDecoder, ViTSize
from mae_lightning.strategies.durable import DurableCheckpointIO
from mae_lightning.tasks import MAEPretraining
from mae_lightning.weights import read_checkpoint
from mae_lightning.weights.loading import load_pretrained
from mae_lightning.weights.opening import open_weights
from mae_lightning.weights.sharded import REST, TABLE

RAN = Path("ran")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(RAN),)


def task() -> MAEPretraining:
    decoder = TransformerDecoder(depth=1, dim=16, num_heads=2)
    images = {"image_size": (28, 28), "num_channels": 1, "mean": (0.5,), "std": (0.2,)}
    return MAEPretraining(ViTSize(16, 1, 2, 7), decoder, **images)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, in which nothing has run in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    yield
    assert not RAN.exists()


@pytest.fixture
def plain() -> Path:
    """A pickle as official checkpoints were, years ago."""
    Path("evil.pth").write_bytes(pickle.dumps({"model": Bomb()}))
    return Path("evil.pth")


@pytest.fixture
def archive() -> Path:
    """As ``torch.save`` writes today."""
    torch.save({"state_dict": Bomb()}, "evil.ckpt")
    return Path("evil.ckpt")


REFUSED = "holds more than tensors and plain values"


def test_the_bombs_are_real(plain: Path, archive: Path) -> None:
    for explode in (lambda: pickle.loads(plain.read_bytes()), lambda: torch.load(archive, weights_only=False)):
        explode()
        RAN.rmdir()


@pytest.mark.parametrize("forced", [False, True], ids=["1 by path", "9 with torch told to unpickle"])
def test_by_path(plain: Path, archive: Path, forced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for path in (plain, archive):
        for read in (read_checkpoint, open_weights, DurableCheckpointIO().load_checkpoint):
            with pytest.raises(ValueError, match=REFUSED):
                read(path)


def test_2_by_http(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    class Asked(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *what: object) -> None:
            asked.append(what)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Asked, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/evil.pth"
        for command in (["inspect", url], ["convert", url, "--to", "timm", "--out", "out"]):
            assert main(command) == 2
            assert "does not exist" in capsys.readouterr().err
        server.shutdown()
    assert asked == []  # a checkpoint is a file: nobody was asked for it


def test_3_as_the_weights_to_begin_with(plain: Path) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        load_pretrained(task().model, plain)


def test_4_as_a_foreign_file_to_convert(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(plain), "--to", "timm", "--out", "out"]) == 2
    assert REFUSED in capsys.readouterr().err
    assert not Path("out").exists()


SETTINGS = {
    "5": {"_instantiator": "os.mkdir", "model": {"class_path": "os.mkdir", "init_args": {"path": "ran"}}},
    "6": {
        "_class_path": "stranger.Model",
        "data": {"class_path": "stranger.Data"},
        "trainer": {"callbacks": "stranger"},
    },
}


def test_5_and_6_hyper_parameters_that_name_callables_and_modules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are plain values, so the file is read; nobody asks for them."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("stranger.py").write_text("import os\nos.mkdir('ran')\n")
    one = task()
    content = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": lightning.__version__}
    content |= {
        "state_dict": one.state_dict(),
        "mae_lightning": one.card().to_dict(),
        "hyper_parameters": SETTINGS["5"] | SETTINGS["6"],
    }
    torch.save(content, "evil.ckpt")
    open_weights("evil.ckpt")
    arguments = [
        "--config=quickstart/pretrain",
        "--config=trainer/cpu",
        "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
        "--model.init_args.decoder.init_args.dim=16",
        "--model.init_args.decoder.init_args.depth=1",
        "--model.init_args.decoder.init_args.num_heads=2",
        "--data.init_args.num_workers=0",
        "--trainer.fast_dev_run=true",
    ]
    assert main(["validate", *arguments, "--ckpt_path=evil.ckpt"]) == 0
    assert "evil.ckpt" in capsys.readouterr().out
    assert "stranger" not in sys.modules


def test_7_a_folder_of_shards() -> None:
    Path("evil.ckpt").mkdir()
    torch.save({}, f"evil.ckpt/{REST}")
    (Path("evil.ckpt") / TABLE).write_bytes(pickle.dumps(Bomb()))
    for read in (read_checkpoint, open_weights):
        with pytest.raises(ValueError, match=r"names posix\.mkdir, which no checkpoint needs"):
            read(Path("evil.ckpt"))


@pytest.mark.parametrize("name", ["evil.pt2", "evil.pt", "evil.pkl", "evil.safetensors"])
def test_8_a_program_as_tokenizer(name: str, plain: Path) -> None:
    """torch.export's files hold pickles; of the kinds that are read, one has no code and one only sums of arrays."""
    plain.rename(name)
    with pytest.raises(ValueError, match=r"must be a \.safetensors or \.onnx file|is damaged or no safetensors"):
        Tokens(name)

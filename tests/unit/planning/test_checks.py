"""Each check of one machine, green and red."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from mae_lightning.data.manifest import Manifest
from mae_lightning.data.strings import Strings
from mae_lightning.planning.checks import Finding
from mae_lightning.planning.checks.all_reduce import check_all_reduce
from mae_lightning.planning.checks.batch import check_batch
from mae_lightning.planning.checks.devices import available_memory, check_device
from mae_lightning.planning.checks.disk import BESIDE, check_disk, state_bytes, training_bytes
from mae_lightning.planning.checks.finding import readable
from mae_lightning.planning.checks.labels import check_labels
from mae_lightning.planning.checks.limits import check_handles, check_shared_memory
from mae_lightning.planning.checks.patience import is_any_left_behind, within
from mae_lightning.planning.checks.versions import check_versions, versions
from mae_lightning.planning.checks.wandb_server import check_wandb

GIGABYTE = 10**9


def check_red(finding: Finding, *parts: str) -> None:
    assert finding.ok is False
    for part in parts:
        assert part in f"{finding.text}; {finding.cure}"


# ---------------------------------------------------------------- patience


def test_a_call_in_time() -> None:
    assert within(5.0, lambda: 3) == 3


def test_a_call_that_returns_nothing() -> None:
    assert within(5.0, lambda: None) is None


def test_a_calls_error_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 / 0)


def test_a_call_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, release.wait)
    assert time.monotonic() - begun < 2
    assert is_any_left_behind()
    release.set()


# ---------------------------------------------------------------- versions, device


def test_versions() -> None:
    found = versions()
    assert list(found) == ["python", "torch", "lightning", "timm", "mae_lightning"]
    assert found["torch"].startswith(torch.__version__.split("+")[0])
    assert check_versions(found).ok
    check_red(check_versions({**found, "timm": "missing"}), "timm missing", "install")


def test_cpu_with_memory() -> None:
    finding = check_device("cpu", 0, needed=1000)
    assert finding.ok
    assert "weights and AdamW take 1 kB" in finding.text


def test_cpu_without_memory() -> None:
    check_red(check_device("cpu", 0, needed=2 * available_memory()), "too little", "fsdp")


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_red(check_device("cuda", 0, 0), "asks for a GPU", "nvidia-smi", "trainer/cpu")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    return lambda free: monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free, 80 * GIGABYTE))


def test_gpu(two_gpus: Callable[[int], None]) -> None:
    two_gpus(79 * GIGABYTE)
    assert check_device("cuda", 1, GIGABYTE) == Finding(
        "device", True, "GPU 1, 79 GB of 80 GB free, weights and AdamW take 1 GB"
    )
    check_red(check_device("cuda", 2, GIGABYTE), "local rank 2", "shows 2 GPUs", "CUDA_VISIBLE_DEVICES")


def test_gpu_in_use(two_gpus: Callable[[int], None]) -> None:
    two_gpus(30 * GIGABYTE)
    check_red(check_device("cuda", 0, GIGABYTE), "another process is on it")
    two_gpus(79 * GIGABYTE)
    check_red(check_device("cuda", 0, 100 * GIGABYTE), "too little")


# ---------------------------------------------------------------- batch


def test_batch() -> None:
    finding = check_batch(4096, 64, None, 32, 1_281_167, "2.4e-3 = ...")
    assert finding == Finding("batch", True, "4096 = 32 images x 64 ranks x accumulation 2; lr 2.4e-3 = ...")


def test_batch_that_does_not_divide() -> None:
    check_red(check_batch(100, 8, None, None), "100 does not divide by 8 devices; 96 or 104 would")


def test_batch_larger_than_the_data() -> None:
    check_red(check_batch(64, 4, None, None, 50), "50 training samples do not fill", "global_batch_size to 48 or less")


def test_batch_of_several_crops_of_each_sample() -> None:
    finding = check_batch(64, 4, None, None, 50, repeats=2)
    assert finding == Finding("batch", True, "64 = 16 images x 4 ranks x accumulation 1")
    too_many = check_batch(128, 4, None, None, 50, repeats=2)
    check_red(too_many, "50 training samples of 2 crops each do not fill", "global_batch_size to 96 or less")
    check_red(
        check_batch(12, 4, None, None, repeats=2), "of 2 crops each, counted in samples", "6 does not divide by 4"
    )


# ---------------------------------------------------------------- disk


def test_bytes_of_a_checkpoint() -> None:
    """Four bytes a number: weights and buffers, two moments of what trains, a third of it frozen."""
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.BatchNorm1d(10, affine=False), nn.Linear(10, 5, bias=False))
    model[2].requires_grad_(False)
    buffers = 2 * 10 * 4 + 8
    assert state_bytes(model) == 4 * (100 + 50) + buffers + 2 * 4 * 100
    assert state_bytes(model, averages=1) == state_bytes(model) + 4 * (100 + 50) + buffers
    assert training_bytes(model) == state_bytes(model) + 4 * 100
    assert state_bytes(model.to("meta")) == 4 * 150 + buffers + 800


def test_disk(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    needed = 3 * GIGABYTE + BESIDE
    finding = check_disk(folder, GIGABYTE, free=needed)
    assert finding.ok
    assert f"{readable(needed)} free in {tmp_path}, 3 checkpoints of 1 GB" in finding.text
    check_red(check_disk(folder, GIGABYTE, free=needed - 1), "free some, or set --run.dir")
    assert not folder.exists()


def test_checkpoints_that_are_there_need_no_more_room(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "last.ckpt.previous"):
        (tmp_path / "checkpoints" / name).write_bytes(bytes(1000))
    assert check_disk(tmp_path, 1000, free=1000 + BESIDE).ok
    check_red(check_disk(tmp_path, 1000, free=999 + BESIDE), "checkpoint")


def test_disk_asks_the_file_system(tmp_path: Path) -> None:
    assert check_disk(tmp_path, 1000).ok
    check_red(check_disk(tmp_path, 10**18), "free some")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    check_red(check_disk(tmp_path / "runs" / "new", 1), "cannot be written to", "--run.dir")


def test_a_limit_on_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (999, 999))
    check_red(check_disk(tmp_path, 1000, free=GIGABYTE), "files may have 999 B", "ulimit -f")
    assert check_disk(tmp_path, 999, free=GIGABYTE).ok


# ---------------------------------------------------------------- limits


def test_handles() -> None:
    assert check_handles(16, limit=1024).ok
    check_red(check_handles(16, limit=512), "512 open files, 16 workers", "ulimit -n")
    assert check_handles(16, limit=-1).ok
    assert check_handles(0).check == "handles"


def test_shared_memory(tmp_path: Path) -> None:
    batch = 64 * 3 * 224 * 224
    needed = 3 * 8 * 2 * batch
    assert check_shared_memory(8, 2, batch, free=needed).ok
    check_red(check_shared_memory(8, 2, batch, free=needed - 1), "2 ranks x 8 workers", "--shm-size")
    assert check_shared_memory(0, 2, batch, free=0).ok
    check_red(check_shared_memory(8, 2, batch, folder=tmp_path / "shm"), "is missing")
    assert check_shared_memory(1, 1, 1, folder=tmp_path).ok


# ---------------------------------------------------------------- labels


def labelled(*labels: int) -> Manifest:
    count = len(labels)
    names = [f"{place}.png" for place in range(count)]
    zeros = np.zeros(count, np.int64)
    return Manifest(
        "",
        False,
        Strings.pack(names),
        zeros,
        np.arange(count),
        Strings.pack(names),
        zeros.astype(np.uint8),
        zeros,
        zeros,
        np.array(labels),
        np.arange(count),
    )


def test_labels() -> None:
    assert check_labels(labelled(0, 1), ("ant", "bee"), 2, None, True).text == "2 classes with names"
    assert check_labels(labelled(0, 1), None, 2, 2, True).text == "2 classes without names"
    empty = check_labels(labelled(0, 0), ("ant", "bee"), 2, None, True)
    assert empty.ok
    assert "1 of them without a training image" in empty.text
    assert check_labels(labelled(-1), None, None, None, False).ok


def test_wrong_labels() -> None:
    check_red(check_labels(labelled(-1), None, None, None, True), "no labels", "class folders")
    check_red(check_labels(labelled(0, 1), None, 2, 10, True), "2 classes, and the model is told 10", "leave out")
    check_red(check_labels(labelled(0, 1), ("ant", "ant"), 2, None, True), "'ant' is named 2 times", "classes.txt")


# ---------------------------------------------------------------- network


@pytest.fixture
def server() -> Iterator[str]:
    """Answers 404 to everything, as a server does that wants a key."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_wandb(server: str) -> None:
    assert check_wandb("online", server, 5.0).ok
    assert check_wandb("online", server, 5.0).text == f"{server} answers"


def test_wandb_that_does_not_answer() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        port = server.server_port  # it listens, and nobody serves
        begun = time.monotonic()
        check_red(check_wandb("online", f"http://key:secret@127.0.0.1:{port}", 0.2), "does not answer", "wandb=offline")
        assert time.monotonic() - begun < 3
    finding = check_wandb("online", f"http://key:secret@127.0.0.1:{port}", 1.0)
    check_red(finding, f"http://127.0.0.1:{port} does not answer", "HTTPS_PROXY")
    assert "secret" not in finding.text


def test_wandb_that_is_not_asked() -> None:
    """What keeps the figures here asks nobody."""
    nobody = "http://127.0.0.1:1"
    assert check_wandb("offline", nobody).ok
    assert check_wandb("off", nobody).ok


def test_sum_of_one_rank() -> None:
    finding = check_all_reduce(HashStore(), 0, 1, torch.device("cpu"), 20.0)
    assert finding.ok
    assert "gloo starts" in finding.text


def test_sum_that_never_comes() -> None:
    begun = time.monotonic()
    finding = check_all_reduce(HashStore(), 0, 2, torch.device("cpu"), 0.5)
    check_red(finding, "gloo", "GLOO_SOCKET_IFNAME")
    assert time.monotonic() - begun < 10

"""Images, scripts and manifests: checked by linters, and their commands run without a container."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mae_lightning.callbacks.preemption import MARKER, REQUEUE_CODE
from mae_lightning.commands.configs import find_config

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
SCRIPTS = [DOCKER / "launch.sh", DOCKER / "slurm/fit.sbatch", ROOT / ".ci/run"]
SMALL = [
    *("--config", "quickstart/pretrain"),
    "--model.init_args.encoder={dim: 16, depth: 1, num_heads: 2, patch_size: 7}",
    "--model.init_args.decoder.init_args.dim=16",
    "--model.init_args.decoder.init_args.depth=1",
    "--model.init_args.warmup_epochs=0",
    "--data.init_args.global_batch_size=50",
    "--data.init_args.num_workers=0",
    "--data.init_args.val=null",
    "--run.wandb=off",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
]


def linter(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{name} is in the test extra"
    return found


def test_dockerfile() -> None:
    done = subprocess.run([linter("hadolint"), str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script(script: Path) -> None:
    for command in (["bash", "-n"], [linter("shellcheck")]):
        done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_constraints_are_exact_and_what_the_package_asks_for() -> None:
    lines = [line for line in (DOCKER / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.+!]+", line) for line in lines), lines
    names = {line.split("==")[0] for line in lines}
    assert {"torch", "torchvision", "lightning", "timm", "wandb", "webdataset", "jsonargparse", "simplejpeg"} <= names


def commands() -> Iterator[list[str]]:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    for service in compose["services"].values():
        yield service["command"]
    for manifest in yaml.safe_load_all((DOCKER / "kubernetes/job.yaml").read_text()):
        if manifest["kind"] == "Job":
            yield from (part["args"] for part in manifest["spec"]["template"]["spec"]["containers"])


def test_manifests_name_what_is_there() -> None:
    found = list(commands())
    assert len(found) == 2
    for program, *words in found:
        assert f"/{program}" in (DOCKER / "Dockerfile").read_text()
        for option, value in zip(words[::2], words[1::2], strict=True):
            assert option == "--config"
            assert find_config(value).is_file()


def test_the_image_can_compile_kernels() -> None:
    last_stage = (DOCKER / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert {"gcc", "libc6-dev", "python3-dev"} <= set(last_stage.split())


def test_runs_under_compose_lie_where_the_images_user_may_write() -> None:
    """Docker gives a new named volume the owner of the image's folder, and a new folder of the host to root."""
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    default = compose["services"]["train"]["volumes"][1].removeprefix("${WORK:-").partition("}")[0]
    assert default in compose["volumes"]


def test_pods_that_were_told_to_go_do_not_count_as_failed() -> None:
    manifests: list[dict[str, Any]] = list(yaml.safe_load_all((DOCKER / "kubernetes/job.yaml").read_text()))
    rules = manifests[1]["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"]["values"] == [REQUEUE_CODE]
    assert rules[0]["action"] == "Ignore"


def test_launch_saves_when_it_is_told_to_go(tmp_path: Path) -> None:
    """Two processes under torchrun; TERM to the script, as a container's stop sends it."""
    launched = subprocess.Popen(
        [
            *("bash", str(DOCKER / "launch.sh"), *SMALL, "--config", "trainer/ddp"),
            *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.max_epochs=100"),
        ],
        cwd=tmp_path,
        env=environment() | {"NAME": "run", "NPROC": "2", "MASTER_PORT": "29517"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(tmp_path / "runs/run/checkpoints/last.ckpt", launched)
        launched.send_signal(signal.SIGTERM)
        printed, _ = launched.communicate(timeout=120)
    finally:
        if launched.poll() is None:
            os.killpg(launched.pid, signal.SIGKILL)
    assert launched.returncode == REQUEUE_CODE, printed[-3000:]
    assert "SIGUSR1 after" in (tmp_path / "runs/run" / MARKER).read_text()


@pytest.mark.parametrize("script", ["launch.sh", "slurm/fit.sbatch"])
@pytest.mark.parametrize(
    ("does", "code", "wants_more"),
    [("exit 3", 3, False), (f"echo told > runs/run/{MARKER}; exit 75", REQUEUE_CODE, True), ("exit 0", 0, False)],
)
def test_a_marker_of_an_earlier_start_counts_for_nothing(
    script: str, does: str, code: int, wants_more: bool, tmp_path: Path
) -> None:
    """With a training that does nothing else."""
    (tmp_path / "runs/run").mkdir(parents=True)
    (tmp_path / "runs/run" / MARKER).write_text("stale\n")
    programs = {
        "python": does,
        "srun": 'while [[ $1 == --* ]]; do shift; done; echo "$SRUN_CPUS_PER_TASK" > cores; "$@"',
        "scontrol": "touch asked",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    given = os.environ | {
        "NAME": "run",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "9",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    done = subprocess.run(["bash", str(DOCKER / script)], cwd=tmp_path, env=given, check=False)
    if script == "launch.sh":
        assert done.returncode == code
    else:
        assert (done.returncode, (tmp_path / "asked").exists()) == (0 if wants_more else code, wants_more)
        assert (tmp_path / "cores").read_text() == "9\n", "srun itself does not take them over"


@pytest.mark.slow
def test_sbatch_queues_itself_again_until_it_is_complete(tmp_path: Path) -> None:
    """With an srun that starts one task here and an scontrol that writes down what it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(
        "#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexport SLURM_PROCID=0 SLURM_LOCALID=0"
        ' SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_NNODES=1 SLURM_JOB_NAME=mae SLURM_NODELIST=127.0.0.1\nexec "$@"\n'
    )
    (programs / "scontrol").write_text('#!/usr/bin/env bash\necho "$@" >> scontrol.log\n')
    for name in ("srun", "scontrol"):
        (programs / name).chmod(0o755)
    script = ["bash", str(DOCKER / "slurm/fit.sbatch"), *SMALL, "--trainer.max_epochs=2"]
    given = environment() | {"NAME": "run", "SLURM_JOB_ID": "7"}
    given["PATH"] = f"{programs}:{given['PATH']}"
    stop = ["--trainer.callbacks=mae_lightning.callbacks.Throughput"]
    first = subprocess.Popen(
        [*script, *stop], cwd=tmp_path, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(tmp_path / "runs/run/checkpoints/last.ckpt", first)
    subprocess.run(["pkill", "-USR1", "-P", str(first.pid)], check=True)  # what --signal=USR1@300 does
    printed, _ = first.communicate(timeout=120)
    assert first.returncode == 0, printed
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n", printed
    second = subprocess.run(script, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=240, check=False)
    assert second.returncode == 0, second.stderr
    assert "goes on after" in second.stdout
    assert not (tmp_path / "runs/run" / MARKER).exists()
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return dict(os.environ) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(400):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.3)
    raise AssertionError(f"{path} does not appear")

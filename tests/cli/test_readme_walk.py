"""Every command of the README in order, as a new user would type it, in one folder.

Each training is cut down to a few steps and the sweep to one trial; with MAE_LIGHTNING_WALK=full they are run as they
stand there. The time of each is written to walk.json, and with -s printed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image_making import picture, write_files
from readme_commands import ROOT, calls, code_named

CHECKPOINT = "runs/quickstart-pretrain/checkpoints/last.ckpt"
GAPS = {"CHECKPOINT": CHECKPOINT, "FOLDER": "hugging-face", "IMAGES": "fashion_mnist:val"}
SHORT = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.check_val_every_n_epoch=1",
    "--model.init_args.warmup_epochs=0",
]
IS_FULL = os.environ.get("MAE_LIGHTNING_WALK") == "full"
SEEDS = (0, 1, 2)


def shortened(words: list[str]) -> list[str]:
    """The same command for impatient people."""
    if IS_FULL:
        return words
    if "fit" in words:
        return [*words, *SHORT]
    if words[0] in ("sweep", "trial"):
        every = [f"--all.{word.removeprefix('--')}" for word in SHORT]
        return [*words, *every, *(["--trials=1"] if words[0] == "sweep" else [])]
    return words


def needs_imagenet(words: list[str]) -> bool:
    """Whether a command trains on what is not here; it is parsed by test_readme, and launched by test_readme_launch."""
    return "fit" in words and any(word.startswith("imagenet/") for word in words)


def filled(words: list[str]) -> list[str]:
    """The command with a file or folder for each word in capitals; classes come from a classifier."""
    classifier = "runs/quickstart-finetune/checkpoints/last.ckpt"
    gaps = {**GAPS, "CHECKPOINT": classifier} if "--top" in words else GAPS
    return [gaps.get(word, word) for word in words]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The program, in the walker's folder."""
    return subprocess.run(
        [sys.executable, "-m", "mae_lightning", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def prepare(words: list[str], folder: Path) -> None:
    """What the README takes for granted at this point."""
    if "compare" in words:
        for recipe in ("finetune", "scratch"):
            for seed in SEEDS:
                named = [f"--seed_everything={seed}", f"--run.name={recipe}-{seed}"]
                run(["fit", f"--config=quickstart/{recipe}", *named, *SHORT], folder)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_the_walk(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "centre.py").write_text(code_named("centre.py"))
    pictures = {f"{('cat', 'dog')[i % 2]}/{i:03d}.png": picture(i, size=(72, 80)) for i in range(200)}
    write_files(tmp_path / "photos", pictures)
    seconds: dict[str, float] = {}
    failed = []
    for call in (call for call in calls() if not needs_imagenet(call)):
        words, shown = filled(call), " ".join(call)
        prepare(words, tmp_path)
        begin = time.monotonic()
        done = run(shortened(words), tmp_path)
        seconds[shown] = round(time.monotonic() - begin, 1)
        print(f"{seconds[shown]:8.1f} s  {shown}", flush=True)
        if done.returncode:
            failed.append(f"{shown}: {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")
    (tmp_path / "walk.json").write_text(json.dumps(seconds, indent=1))
    assert not failed, "\n\n".join(failed)

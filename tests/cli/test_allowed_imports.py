"""What configs may name, and a masking of the user's own."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mae_lightning.cli.arguments import take_allowed_imports
from mae_lightning.cli.imports import ImportPolicy
from mae_lightning.data import ShardDataModule
from mae_lightning.planning.benchmark.comparisons import Comparison

SPIRAL = '''
import torch
from mae_lightning.models import MaskSampler, PatchMask


class SpiralMasking(MaskSampler):
    """Keeps the patches nearest to the centre."""

    def __init__(self, turns: int = 1) -> None:
        super().__init__()
        print(f"spiral of {turns} turns")

    def __call__(self, noise, grid, mask_ratio):
        rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        distance = (rows - grid[0] / 2) ** 2 + (columns - grid[1] / 2) ** 2
        return PatchMask.from_noise(distance.flatten().float().expand_as(noise), mask_ratio)
'''
OVERLAY = "model: {init_args: {sampler: {class_path: my_masks.SpiralMasking, init_args: {turns: 3}}}}\n"
WITHOUT_FOLDER = """\
import os, sys
sys.path = [path for path in sys.path if path not in ("", os.getcwd())]
from mae_lightning.__main__ import main
sys.exit(main())
"""
SCRIPT = ("-c", WITHOUT_FOLDER)
"""Like the console script: the working directory is not on the path by itself."""


def test_a_masking_of_ones_own(program: Callable, here: Path, small: tuple[str, ...]) -> None:
    (here / "my_masks.py").write_text(SPIRAL)
    (here / "spiral.yaml").write_text(OVERLAY)
    arguments = ("fit", *small, "--config=spiral.yaml", "--allow-import", "my_masks", "--trainer.fast_dev_run=true")
    outcome = program(*arguments, command=SCRIPT)
    assert outcome.code == 0, outcome.err
    assert "spiral of 3 turns" in outcome.out


def test_plan_and_sweep_take_it(cli: Callable, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    (here / "my_masks.py").write_text(SPIRAL)
    (here / "spiral.yaml").write_text(OVERLAY)
    tiny = "--model.init_args.encoder={dim: 8, depth: 1, num_heads: 1, patch_size: 4}"
    words = ("plan", "--config=quickstart/pretrain", "--config=spiral.yaml", "--gpu=h100", tiny)
    assert "configs may not name my_masks.SpiralMasking" in cli(*words).err
    outcome = cli("--allow-import", "my_masks", *words)
    assert outcome.code == 0, outcome.err
    assert "spiral of 3 turns" in outcome.out
    commands = cli("--allow-import", "my_masks", "sweep", "sweeps/quickstart/table_1c", "--dry-run").out.splitlines()
    assert len(commands) == 4
    assert all("--all.allow-import=my_masks" in command for command in commands)


def test_bench_takes_it(cli: Callable, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    (here / "my_masks.py").write_text(SPIRAL)
    (here / "spiral.yaml").write_text(OVERLAY)
    reached: list[str] = []

    def build_only(comparison: Comparison, *_: object) -> None:
        reached.append(type(comparison.build("meta").sampler).__name__)
        raise RuntimeError("enough")

    def read_only(args: object, data: ShardDataModule, folder: Path) -> None:
        reached.append(type(data).__name__)
        raise RuntimeError("enough")

    monkeypatch.setattr("mae_lightning.planning.benchmark.figures.compare", build_only)
    monkeypatch.setattr("mae_lightning.cli.bench_data._measure", read_only)
    for what in (("step", "--device=cpu"), ("data",)):
        words = ("bench", *what, "--config=quickstart/pretrain", "--config=spiral.yaml")
        assert "configs may not name my_masks.SpiralMasking" in cli(*words).err
        with pytest.raises(RuntimeError, match="enough"):
            cli(*words, "--allow-import=my_masks")
    assert reached == ["SpiralMasking", "ShardDataModule"]


def test_without_permission_it_is_refused_and_not_imported(
    cli: Callable, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "my_masks.py").write_text("open('imported', 'w')")
    (here / "spiral.yaml").write_text(OVERLAY)
    outcome = cli("fit", "--config=quickstart/pretrain", "--config=spiral.yaml")
    place = "model.init_args.sampler.class_path"
    hint = "configs may not name my_masks.SpiralMasking; if you trust my_masks, add --allow-import my_masks"
    assert outcome.err == f"error: {place}: {hint} (in spiral.yaml)\n"
    assert outcome.code == 2
    assert not Path("imported").exists()


@pytest.mark.parametrize(
    ("path", "permitted"),
    [
        ("mae_lightning.models.Pixels", True),
        ("torch.optim.AdamW", True),
        ("torch.hub.load", False),
        ("torch.load", False),
        ("os.system", False),
        ("torchx.A", False),
        ("mine.A", True),
        ("minetoo.A", False),
        ("theirs.sub.A", True),
        ("theirs.A", False),
    ],
)
def test_the_longest_part_with_a_verdict_decides(path: str, permitted: bool) -> None:
    assert ImportPolicy(["mine", "theirs.sub"]).permits(path) is permitted


@pytest.mark.parametrize(
    "arguments",
    [
        ["--allow-import", "a", "fit", "--allow-import=b.c", "--x=1"],
        ["fit", "--allow-import=a", "--x=1", "--allow-import", "b.c"],
    ],
)
def test_the_option_is_taken_out_wherever_it_stands(arguments: list[str]) -> None:
    assert take_allowed_imports(arguments) == (["fit", "--x=1"], ["a", "b.c"])


@pytest.mark.parametrize(
    ("arguments", "given"),
    [(["--allow-import"], ""), (["--allow-import="], ""), (["--allow-import", "./a.py"], "./a.py")],
)
def test_it_needs_the_name_of_a_package(cli: Callable, arguments: list[str], given: str) -> None:
    outcome = cli("fit", *arguments)
    assert outcome.err == f"error: --allow-import needs the name of a package, such as my_masks, not {given!r}\n"


def test_yaml_runs_nothing(cli: Callable, here: Path) -> None:
    (here / "my.yaml").write_text("trainer: !!python/object/apply:os.system ['touch ran']\n")
    outcome = cli("fit", "--config=my.yaml")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert not Path("ran").exists()

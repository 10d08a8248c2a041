"""``bench data``: how fast the data comes, and where the time goes."""

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mae_lightning.data import ShardDataModule
    from mae_lightning.data.manifest import Manifest

MIN_ROUNDS = 7
EXAMPLE_PACE = 1000

EPILOG = """\
Some images are copied into a shard (and, to compare, a folder) on the temporary disk and run through the pipeline in
this process, one thread, warm cache. Times are CPU times: a busy machine changes little, and a disk's waits are out.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds its options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--config", action="append", default=[], metavar="CONFIG", help="recipe whose data is measured; more overlay it"
    )
    parser.add_argument("--data", metavar="SOURCE", help="measure these images, in place of the config's")
    parser.add_argument("--image-size", type=int, default=224, metavar="PIXELS", help="without a config (default: 224)")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="at most so many (default: 256)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="at least 7 (default: 9)")
    parser.add_argument(
        "--images-per-second", type=float, metavar="PACE", help="of the model, to count the cores that keep it fed"
    )
    parser.add_argument(
        "--compare", action="store_true", help="against an image folder, Pillow and torchvision's first transforms"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures, and prints a table."""
    if not args.config and args.data is None:
        raise ValueError("nothing to measure: give --config RECIPE or --data SOURCE")
    check_rounds(args.rounds)
    if args.images < 1:
        raise ValueError(f"--images {args.images} must be above 0")
    data = _data(args)
    with tempfile.TemporaryDirectory(prefix="mae-lightning-bench-") as folder:
        figures = _measure(args, data, Path(folder))
    for line in _lines(figures):
        print(line)
    if args.out is not None:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def check_rounds(rounds: int) -> None:
    """Refuses what makes no interval.

    Raises:
        ValueError: There are too few rounds.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"--rounds {rounds}: an interval of 95 % takes at least {MIN_ROUNDS}")


def _data(args: argparse.Namespace) -> "ShardDataModule":
    from mae_lightning.cli.configured import read_configured
    from mae_lightning.cli.imports import ImportPolicy
    from mae_lightning.data import ShardDataModule

    if not args.config:
        return ShardDataModule(train=args.data, image_size=args.image_size)
    replaced = [f"--data.init_args.train={args.data}", "--data.init_args.val=null"] if args.data else []
    arguments = [*(f"--config={name}" for name in args.config), *replaced]
    found = read_configured(arguments, ImportPolicy(args.allowed_imports)).build_data()
    if not isinstance(found, ShardDataModule):
        raise ValueError(f"bench measures ShardDataModule, and the config's data is {type(found).__name__}")
    return found


def _measure(args: argparse.Namespace, data: "ShardDataModule", folder: Path) -> dict[str, Any]:
    """All figures, as plain values."""
    from mae_lightning.data.benchmark import Official, Ours, measure, pixel_difference, write_image_folder
    from mae_lightning.data.urls import public_name

    manifest = _copied(data, args.images, folder / "shards")
    make = replace(data.evaluate, augmentation=data.augmentation)
    figures: dict[str, Any] = {
        "data": public_name(data.sources["train"].name),
        "images": len(manifest),
        "image_size": list(data.image_size),
        "augmentation": type(data.augmentation).__name__,
        "rounds": args.rounds,
        "images_per_second": args.images_per_second,
    }
    official = None
    if args.compare:
        write_image_folder(manifest, folder / "folder")
        official = Official(folder / "folder", make, data.mean, data.std)
        figures["difference"] = pixel_difference(manifest, make)
    costs = measure(Ours(manifest, make), official, args.rounds)
    return figures | {"costs": {name: asdict(cost) for name, cost in costs.items()}}


def _copied(data: "ShardDataModule", count: int, folder: Path) -> "Manifest":
    """Some of the training images in a shard of their own."""
    from mae_lightning.data.origins import contents_of
    from mae_lightning.data.packing import Packing, pack
    from mae_lightning.data.sources import open_source
    from mae_lightning.data.statistics import some_rows

    source = data.sources["train"]
    chosen = contents_of(source).select(some_rows(source.manifest, count, data.seed))
    pack({"train": chosen}, folder, Packing(shuffle=False))
    return open_source(str(folder), "train").manifest


def _lines(figures: dict[str, Any]) -> list[str]:
    """The figures for people."""
    from mae_lightning.data.benchmark import STAGES

    costs: dict[str, dict[str, float]] = figures["costs"]
    height, width = figures["image_size"]
    lines = [
        f"{figures['data']}: {figures['images']} images to {height} x {width} by {figures['augmentation']};"
        f" medians of {figures['rounds']} rounds and their 95 % intervals",
        "CPU milliseconds an image",
        *(f"  {name:<10}  {_cell(costs[name])}" for name in STAGES),
        f"  {'whole':<10}  {_cell(costs['whole'])}   {_pace(costs['whole'])} images/s on one core",
        f"plan and reading: {costs['offset_share']['median']:.1%} of this by offset,"
        f" {costs['webdataset_share']['median']:.1%} where webdataset has to stream"
        f" ({costs['webdataset']['median']:.3f} ms an image, the plan {costs['plan']['median']:.4f})",
        _cores(costs["whole"]["median"], figures["images_per_second"]),
    ]
    if "official" in costs:
        lines += [
            f"official pipeline: {_cell(costs['official'])} ms   {_pace(costs['official'])} images/s on one core",
            f"ratio: {_cell(costs['ratio'], 2)}; mean absolute difference {figures['difference']:.3f} of 255",
        ]
    return lines


def _cell(cost: dict[str, float], digits: int = 3) -> str:
    return f"{cost['median']:.{digits}f} ({cost['low']:.{digits}f} to {cost['high']:.{digits}f})"


def _pace(cost: dict[str, float]) -> str:
    return f"{1000 / cost['median']:,.0f}"


def _cores(milliseconds: float, pace: float | None) -> str:
    """How many cores keep a model fed."""
    if pace is None:
        hint = "; the model's own pace is train/images_per_second in its run's metrics.csv: give --images-per-second"
        return f"cores to feed {EXAMPLE_PACE:,} images/s: {EXAMPLE_PACE * milliseconds / 1000:.1f}{hint}"
    return f"cores to feed the model's {pace:,.0f} images/s: {pace * milliseconds / 1000:.1f}"

"""``pack``: shards out of images, wherever they lie."""

import argparse
from pathlib import Path

from mae_lightning.commands.checks import check_folder
from mae_lightning.commands.progress import WORKERS, Progress

EPILOG = """\
SOURCE is an image folder (class/image), a folder of images without labels, a folder with train/ and val/ in it, shards,
a manifest, or torchvision:CLASS:FOLDER for a data set of torchvision's that is on disk. SOURCE:val is one split alone.
Images keep their bytes unless --shorter-side is given; images and labels are packed, other members of shards are not.
Interrupted, the same command goes on, and the result is the same byte for byte. Train on it: --data.init_args.train=DIR
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="SOURCE", help="images, as below")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder of the shards and manifest")
    parser.add_argument("--val-fraction", type=float, metavar="SHARE", help="take a validation split out of each class")
    parser.add_argument("--shard-megabytes", type=float, default=256.0, metavar="MB", help="about (default: 256)")
    parser.add_argument("--shard-samples", type=int, metavar="N", help="at most so many samples a shard")
    parser.add_argument(
        "--shuffle", action=argparse.BooleanOptionalAction, default=True, help="draw the order with --seed (default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order and the validation split")
    parser.add_argument(
        "--shorter-side", type=int, metavar="PIXELS", help="re-encode larger images as JPEG: this changes the data"
    )
    parser.add_argument("--quality", type=int, default=92, help="of re-encoded JPEGs (default: 92)")
    parser.add_argument(
        "--max-bad-samples", type=int, default=0, metavar="N", help="leave out, and name, so many undecodable images"
    )
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"threads (default here: {WORKERS})")


def run(args: argparse.Namespace) -> int:
    """Packs, and says what came of it."""
    from mae_lightning.data.contents import hold_out_val
    from mae_lightning.data.origins import find_contents
    from mae_lightning.data.packing import Packing, pack

    _check(args)
    check_folder(args.out)
    splits = find_contents(args.source)
    if args.val_fraction is not None:
        splits = hold_out_val(splits, args.val_fraction, args.seed)
    if args.shorter_side is not None:
        print(
            f"this changes the data: images with a shorter side above {args.shorter_side} pixels are resized to it and"
            f" re-encoded as JPEG of quality {args.quality}"
        )
    names = ("shard_megabytes", "shard_samples", "shorter_side", "quality", "shuffle", "seed", "max_bad_samples")
    options = Packing(**{name: getattr(args, name) for name in names}, workers=args.workers)
    progress = Progress("packing", sum(map(len, splits.values())))
    path = pack(
        splits,
        args.out,
        options,
        {"val_fraction": args.val_fraction},
        progress,
        warn=lambda reason: progress.say(f"left out: {reason}"),
    )
    _report(path, progress.close())
    return 0


def _check(args: argparse.Namespace) -> None:
    for name in ("shard_megabytes", "shard_samples", "shorter_side", "workers"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be above 0")
    if not 1 <= args.quality <= 100:
        raise ValueError(f"--quality {args.quality} must be from 1 to 100")


def _report(path: Path, pace: str) -> None:
    from mae_lightning.data.manifest_file import read_description

    description = read_description(str(path))
    for split, record in description.splits.items():
        shards = record["shards"]
        megabytes = sum(shard["bytes"] for shard in shards) / 1e6
        print(f"{split}: {record['samples']:,} images in {len(shards)} shards, {megabytes:,.1f} MB")
    print(f"{path}: mean {description.mean}, std {description.std}; {pace}")

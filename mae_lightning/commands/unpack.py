"""``unpack``: files out of shards, the way back from ``pack``."""

import argparse
from pathlib import Path

from mae_lightning.commands.checks import check_folder
from mae_lightning.commands.progress import WORKERS, Progress

EPILOG = """\
Images keep their bytes and lie in DIR/class/name.kind, without labels in DIR/name.kind; several splits get a folder
each. classes.txt keeps the order of the classes, by number where they have no names, so that packing the folder again
gives the same labels.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="SOURCE", help="a manifest or its folder, shards, or a catalogue name")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder of the images")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"threads (default here: {WORKERS})")


def run(args: argparse.Namespace) -> int:
    """Unpacks every split."""
    from mae_lightning.data.sources import open_source, splits_of
    from mae_lightning.data.unpacking import unpack

    check_folder(args.out)
    splits = splits_of(args.source)
    homes = {args.out / split: open_source(f"{args.source}:{split}", split) for split in splits}
    homes = homes or {args.out: open_source(args.source, "train")}
    if args.out.exists() and any(args.out.iterdir()):
        raise ValueError(f"{args.out} is not empty; name a new folder")
    progress = Progress("unpacking", sum(len(source.manifest) for source in homes.values()))
    for folder, source in homes.items():
        unpack(source, folder, args.workers, progress)
    pace = progress.close()
    for folder, source in homes.items():
        print(f"{folder}: {len(source.manifest):,} images; {pace}")
    return 0

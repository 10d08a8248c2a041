"""``verify``: whether shards are what their manifest says."""

import argparse

from mae_lightning.commands.progress import WORKERS, Progress

EPILOG = """\
Every byte of every shard is read and compared by sha256; of a shard that differs, what differs is named. One line a
fault; the exit code is 0 if there are none, 2 if there are.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("manifest", metavar="MANIFEST", help="manifest.json, or its folder")
    parser.add_argument("--decode", action="store_true", help="decode every image, too")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"threads (default here: {WORKERS})")


def run(args: argparse.Namespace) -> int:
    """Prints every fault, and whether there were any."""
    from mae_lightning.data.manifest_file import MANIFEST_NAME, read_description
    from mae_lightning.data.verify import verify_split

    location = args.manifest if args.manifest.endswith(".json") else f"{args.manifest}/{MANIFEST_NAME}"
    description = read_description(location)
    samples = sum(record["samples"] for record in description.splits.values())
    progress, faults = Progress("verifying", samples), 0
    for split in description.splits:
        try:
            for line in verify_split(description, split, args.decode, args.workers, progress):
                progress.say(line)
                faults += 1
        except (ValueError, FileNotFoundError) as error:  # of the table: the other splits are still looked at
            progress.say(str(error))
            faults += 1
    pace = progress.close()
    shards = sum(len(record["shards"]) for record in description.splits.values())
    found = "no fault" if not faults else f"{faults} fault{'s' if faults > 1 else ''}"
    print(f"{location}: {found} in {samples:,} samples, {shards} shards; {pace}")
    return 2 if faults else 0

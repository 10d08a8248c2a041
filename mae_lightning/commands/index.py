"""``index``: a manifest for shards made elsewhere."""

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from mae_lightning.commands.checks import check_folder
from mae_lightning.commands.progress import WORKERS, Progress

EPILOG = """\
Every byte of every shard is read once, and up to 512 images a second time for mean and deviation. URLS are paths,
file://, http(s):// or what fsspec reaches (s3://, gs://), with braces ('train-{0000..1023}.tar') and, locally,
wildcards; quote them. Of a sample, the image (jpg, jpeg, png, webp, gif, bmp, npy) and the label (cls, a class index as
text) count. Train on the result: --data.init_args.train=FOLDER

A manifest never holds a user, a password or the query of a URL. Where shards need them, keep them in the environment,
as URLs that everything below them is opened with: MAE_LIGHTNING_URL_SECRETS='https://HOST/FOLDER?sig=... s3://...'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("urls", nargs="+", metavar="URLS", help="shards of the training split")
    parser.add_argument("--val", nargs="+", default=[], metavar="URLS", help="shards of the validation split")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where manifest.json goes (or FOLDER/manifest.json)"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names, one a line; by default classes.txt beside the shards"
    )
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"threads (default here: {WORKERS})")


def run(args: argparse.Namespace) -> int:
    """Reads the shards and writes their manifest."""
    from mae_lightning.data.foreign import index_splits

    check_folder(_folder(args.out))
    splits = {"train": args.urls} | ({"val": args.val} if args.val else {})
    _warn_of_secrets([url for urls in splits.values() for url in urls])
    progress = Progress("indexing")
    manifests, path = index_splits(
        splits,
        _folder(args.out),
        args.classes,
        args.workers,
        progress,
        warn=lambda reason: progress.say(f"not measured: {reason}"),
    )
    pace = progress.close()
    for split, manifest in manifests.items():
        print(f"{split}: {len(manifest):,} images in {len(manifest.containers)} shards")
    print(f"{path}; {pace}")
    return 0


def _folder(out: Path) -> Path:
    if out.name == "manifest.json":
        return out.parent
    if out.suffix == ".json":
        raise ValueError(f"--out {out}: a manifest is always called manifest.json; name its folder")
    return out


def _warn_of_secrets(urls: list[str]) -> None:
    from mae_lightning.data.urls import SECRETS_VARIABLE

    parts = [urlsplit(url) for url in urls if "://" in url]
    if any(part.query or "@" in part.netloc for part in parts):
        print(
            f"the manifest names the shards without user and query: to read them, set {SECRETS_VARIABLE} (see --help)"
        )

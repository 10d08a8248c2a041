"""``evaluate``: what frozen encoders are worth, by several protocols, in one table."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_lightning.atomic import write_atomically
from mae_lightning.commands.checks import check_counts, check_folder, device_called
from mae_lightning.secrets import redact

if TYPE_CHECKING:
    from mae_lightning.data.manifest import Manifest
    from mae_lightning.evaluation.encoders import FrozenEncoder
    from mae_lightning.evaluation.features import FeatureSet
    from mae_lightning.evaluation.protocols import Score

PROTOCOLS = ("knn", "few_shot", "linear", "attentive")
TOKEN_BYTES = 2
MAX_TOKEN_GIGABYTES = 16
RESULTS = "results.json"
HARMLESS = ("batch_size", "num_workers", "device", "out", "wandb", "settings", "allowed_imports")
"""Options that do not change the results."""
COLUMNS = ("encoder", "protocol", "labels", "accuracy", "selected on", "seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "encoders", nargs="+", metavar="ENCODER", help="checkpoint of any format, timm name, or 'pixels' for none"
    )
    parser.add_argument(
        "--data", required=True, help="labelled training data: a catalogue name, manifest, shards, folder"
    )
    parser.add_argument("--val", help="images to judge on; by default the data's own held-out split")
    parser.add_argument("--classes", help="judge on these classes alone, such as 6-9 or 0,3,7-9")
    parser.add_argument(
        "--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS, metavar="NAME", help="of %(choices)s"
    )
    parser.add_argument(
        "--fractions", nargs="+", type=float, default=(0.01, 0.1, 1.0), help="shares of the training labels"
    )
    parser.add_argument("--feature", choices=("mean", "class"), default="mean", help="mean patch token or class token")
    parser.add_argument("--untrained", action="store_true", help="judge each encoder with fresh weights, too")
    parser.add_argument("--max-train", type=int, help="use at most this many training images, drawn with the seed")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="for timm's encoders")
    parser.add_argument(
        "--crop-fraction", type=float, default=1.0, help="share of the shorter side kept: ImageNet 0.875"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="folder of the results; by default 'evaluation' in the first run's folder"
    )
    parser.add_argument("--wandb", choices=("auto", "online", "offline", "off"), default="auto")


def run(args: argparse.Namespace) -> int:
    """Judges every encoder, prints the table and how to read it, and writes both."""
    import torch

    from mae_lightning.evaluation.protocols import READING_KNN
    from mae_lightning.tracking import log_table

    folder = args.out or _default_folder(args.encoders[0])
    _check(args, folder)
    device, manifests = device_called(args.device), _manifests(args)
    for name in args.encoders:
        _check_encoder(name, max(map(len, manifests)), args)
    torch.manual_seed(args.seed)  # fresh weights are the seed's too
    scores: list[Score] = []
    for name in args.encoders:
        for untrained in (False, True) if args.untrained else (False,):
            scores += _judge(_open(name, args, untrained=untrained).to(device), *manifests, args)
    if not scores:
        raise ValueError("no protocol was possible on these data; the lines above say why")
    table = format_table([_cells(score) for score in scores])
    print(f"\n{table}\n")
    if "knn" in args.protocols:
        print(READING_KNN + "\n")
    _write(folder, args, scores, table)
    log_table(folder, "evaluation", [_row(score) for score in scores], args.wandb)
    print(f"{folder / RESULTS}: these figures with every learning rate and draw")
    return 0


def _check(args: argparse.Namespace, folder: Path) -> None:
    """Refuses before the work what would fail after it."""
    check_counts(args, batch_size=1, num_workers=0, max_train=1, image_size=1)
    check_folder(folder)
    _check_replaced(folder / RESULTS, args)
    for fraction in args.fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"--fractions {fraction:g}: above 0 and at most 1")


def _check_replaced(path: Path, args: argparse.Namespace) -> None:
    """Only the same command takes the place of what is there."""
    if not path.is_file():
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["settings"]
        others = [name for name, value in _settings(args).items() if name not in HARMLESS and known.get(name) != value]
    except (ValueError, TypeError, KeyError, AttributeError):
        others = ["a file that evaluate did not write"]
    if others:
        raise ValueError(f"{path} is of another evaluation ({', '.join(others)}) and is kept; name another --out")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options as the results record them, without what is secret."""
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    plain: dict[str, Any] = json.loads(json.dumps(redact(settings)))
    return plain


def _check_encoder(name: str, num_images: int, args: argparse.Namespace) -> None:
    """Likewise an encoder that is not there, or whose tokens are too many."""
    encoder = _open(name, args)
    if "attentive" in args.protocols:
        _check_memory(encoder, num_images)


def _open(name: str, args: argparse.Namespace, *, untrained: bool = False) -> "FrozenEncoder":
    from mae_lightning.evaluation.encoders import open_encoder

    size = tuple(args.image_size) if args.image_size else None
    return open_encoder(name, feature=args.feature, image_size=size, untrained=untrained)


def _judge(
    encoder: "FrozenEncoder", train: "Manifest", held_out: "Manifest", args: argparse.Namespace
) -> list["Score"]:
    """All protocols on one encoder; a line says which were not possible, and why."""
    from mae_lightning.evaluation.protocols import Score, run_protocols

    start = time.perf_counter()
    features, judged_on = (_features(encoder, manifest, args) for manifest in (train, held_out))
    seconds = time.perf_counter() - start
    print(f"{encoder.name}: features of {len(train):,} + {len(held_out):,} images in {seconds:.1f} s", flush=True)
    scores = []
    for score in run_protocols(encoder.name, features, judged_on, args.protocols, args.fractions, args.seed):
        if isinstance(score, Score):
            print(f"  {score.protocol}, {score.labels}: {score.accuracy:.1%}", flush=True)
            scores.append(score)
        else:
            print(f"  {score.protocol}, {score.labels}: not possible: {score.reason}", flush=True)
    return scores


def _manifests(args: argparse.Namespace) -> tuple["Manifest", "Manifest"]:
    """Training and held-out samples, both labelled by the same classes.

    Raises:
        ValueError: There are no labels, or nothing to judge on.
    """
    from mae_lightning.data.sources import held_out_name, open_source, with_classes_of
    from mae_lightning.data.statistics import some_rows
    from mae_lightning.data.subsets import of_classes

    train = open_source(args.data, "train")
    name = args.val or held_out_name(args.data)
    if name is None:
        raise ValueError(f"{args.data} has no held-out split; name images to judge on with --val")
    held_out = with_classes_of(open_source(name, "val"), train)
    if are_same(train.manifest, held_out.manifest):
        raise ValueError(f"{args.data} and {name} are the same samples; judge on others, named with --val")
    for source in (train, held_out):
        if not source.manifest.is_labelled:
            raise ValueError(f"{source.name} has no labels; the protocols need labelled images")
    if args.classes is not None:
        train, held_out = of_classes({"train": train, "val": held_out}, args.classes).values()
    manifest = train.manifest
    if args.max_train is not None:
        manifest = manifest.select(some_rows(manifest, args.max_train, args.seed))
    return manifest, held_out.manifest


def are_same(one: "Manifest", other: "Manifest") -> bool:
    """Whether two manifests are of the same files; arrays of one shape under the same names have one digest."""
    places = [(Path(manifest.base).resolve(), tuple(manifest.containers)) for manifest in (one, other)]
    return one.digest == other.digest and places[0] == places[1]


def _features(encoder: "FrozenEncoder", manifest: "Manifest", args: argparse.Namespace) -> "FeatureSet":
    from mae_lightning.evaluation.features import cropped_batches, extract

    keep_tokens = "attentive" in args.protocols
    images = (encoder.image_size, encoder.num_channels, args.crop_fraction)
    batches = cropped_batches(manifest, *images, args.batch_size, args.num_workers)
    return extract(encoder, batches, keep_tokens=keep_tokens)


def _check_memory(encoder: "FrozenEncoder", num_images: int) -> None:
    """Refuses before the work, not after it."""
    import torch

    device = encoder.normalize.mean.device
    blank = torch.zeros(1, encoder.num_channels, *encoder.image_size, device=device)
    gigabytes = encoder.patch_tokens(encoder.tokens(blank)).numel() * TOKEN_BYTES * num_images / 1e9
    if gigabytes > MAX_TOKEN_GIGABYTES:
        raise ValueError(
            f"the tokens of {num_images:,} images for the attentive probe take {gigabytes:.0f} GB, more than"
            f" {MAX_TOKEN_GIGABYTES}; take fewer with --max-train, or name --protocols without attentive"
        )


def _default_folder(encoder: str) -> Path:
    """Inside the run that wrote the checkpoint, else beside the runs."""
    path = Path(encoder)
    if path.parent.name == "checkpoints":
        return path.parents[1] / "evaluation"
    return Path("runs") / f"evaluation-{path.stem if path.is_file() else encoder}"


def _row(score: "Score") -> dict[str, Any]:
    """A score with plain values under the table's titles."""
    return {
        "encoder": score.encoder,
        "protocol": score.protocol,
        "labels": score.labels,
        "number of labels": score.num_labels,
        "accuracy": score.accuracy,
        "deviation": score.deviation,
        "selected on": score.selected_on,
        "seconds": round(score.seconds, 2),
    }


def _cells(score: "Score") -> dict[str, str]:
    spread = "" if score.deviation is None else f" +- {100 * score.deviation:.1f}"
    shown = {"accuracy": f"{100 * score.accuracy:.1f}{spread}", "seconds": f"{score.seconds:.1f}"}
    values = _row(score) | shown | {"labels": f"{score.labels} ({score.num_labels:,})"}
    return {title: str(values[title]) for title in COLUMNS}


def format_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows under their titles, in columns as wide as they need."""
    titles = list(rows[0])
    widths = {title: max(len(title), *(len(row[title]) for row in rows)) for title in titles}
    lines = [dict(zip(titles, titles, strict=True)), {title: "-" * widths[title] for title in titles}, *rows]
    return "\n".join("  ".join(f"{line[title]:<{widths[title]}}" for title in titles).rstrip() for line in lines)


def _write(folder: Path, args: argparse.Namespace, scores: Sequence["Score"], table: str) -> None:
    content = {"settings": _settings(args), "scores": [asdict(score) for score in scores]}
    write_atomically(folder / RESULTS, json.dumps(content, indent=2) + "\n")
    write_atomically(folder / "table.txt", table + "\n")

"""``predict``: class probabilities or features of images, a row a sample, as Parquet or CSV."""

import argparse
import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_lightning.commands.checks import check_counts, check_out, device_called
from mae_lightning.commands.facts import add_facts, facts
from mae_lightning.commands.progress import Progress

if TYPE_CHECKING:
    from mae_lightning.data.sources import Source
    from mae_lightning.evaluation.predictions import Columns

Write = Callable[["Columns"], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file, a folder or a timm name")
    parser.add_argument(
        "--data",
        required=True,
        help="images: a catalogue name, manifest, shards, folder, image; NAME:train for a split other than val",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="new file, .parquet or .csv")
    parser.add_argument(
        "--what", choices=("probabilities", "features"), default="probabilities", help="by default the probabilities"
    )
    parser.add_argument("--top", type=int, metavar="K", help="only the K likeliest classes")
    parser.add_argument("--layer", type=int, metavar="N", help="features: the mean patch token after block N, from 1")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="by default the model's")
    parser.add_argument("--crop-fraction", type=float, default=1.0, help="share of the shorter side: ImageNet 0.875")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add_facts(parser)


def run(args: argparse.Namespace) -> int:
    """Writes a row for every sample; the file appears when it is whole."""
    from mae_lightning import load_encoder
    from mae_lightning.data.sources import open_source
    from mae_lightning.data.urls import public_name
    from mae_lightning.evaluation.predictions import answers, class_columns, features_of, identity, probabilities_of
    from mae_lightning.models import Normalization
    from mae_lightning.weights.files import written_whole

    _check(args)
    wants_classes = args.what == "probabilities"
    size = tuple(args.image_size) if args.image_size else None
    model = load_encoder(args.checkpoint, image_size=size, head=wants_classes, **facts(args))
    answer = probabilities_of(model, args.checkpoint) if wants_classes else features_of(model, args.layer)
    settings, device = model.pretrained_cfg, device_called(args.device)
    model.to(device)
    normalize = Normalization(settings["mean"], settings["std"]).to(device)
    source = _labelled_as(open_source(args.data, "val"), settings["label_names"])
    progress = Progress("predicting", len(source.manifest))
    with written_whole(args.out) as temporary, _table(temporary) as write:
        for indices, values in answers(answer, normalize, _batches(source, settings["input_size"], args)):
            named = settings["label_names"]
            said: Columns = {"features": values.numpy()}
            write(identity(source, indices) | (class_columns(values, named, args.top) if wants_classes else said))
            progress(len(indices))
    print(
        f"{args.out}: {args.what} of {len(source.manifest):,} images of {public_name(source.name)}; {progress.close()}"
    )
    return 0


def _labelled_as(source: "Source", names: tuple[str, ...] | None) -> "Source":
    """The source with its labels counted as the model counts, where its classes are some of the model's."""
    from dataclasses import replace

    from mae_lightning.data.sources import with_classes_of

    if names is None or source.class_names is None or not set(source.class_names) <= set(names):
        return source
    return with_classes_of(source, replace(source, class_names=tuple(names)))


def _check(args: argparse.Namespace) -> None:
    """Refuses before the work what would fail after it."""
    if args.out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out {args.out}: the table is a .parquet or a .csv file")
    if args.out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError("Parquet needs pyarrow: pip install 'mae-lightning[parquet]', or write a .csv")
    if args.what == "features" and args.top is not None:
        raise ValueError("--top is for --what probabilities")
    if args.what == "probabilities" and args.layer is not None:
        raise ValueError("--layer is for --what features")
    check_counts(args, batch_size=1, num_workers=0, top=1, image_size=1)
    check_out(args.out)


def _batches(source: "Source", input_size: tuple[int, int, int], args: argparse.Namespace) -> Any:
    from mae_lightning.evaluation.features import cropped_batches

    channels, height, width = input_size
    images = ((height, width), channels, args.crop_fraction)
    return cropped_batches(source.manifest, *images, args.batch_size, args.num_workers)


@contextmanager
def _table(path: Path) -> Iterator[Write]:
    """What adds rows to a file; a column of vectors becomes a list in Parquet and several columns in CSV."""
    with _parquet(path) if path.suffix == ".parquet" else _csv(path) as write:
        yield write


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)

        def write(columns: "Columns") -> None:
            flat = _flat(columns)
            if file.tell() == 0:
                writer.writerow(flat)
            writer.writerows(zip(*flat.values(), strict=True))

        yield write


def _flat(columns: "Columns") -> dict[str, list[Any]]:
    flat: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if isinstance(values, list) or values.ndim == 1:
            flat[name] = list(values)
        else:
            flat |= {f"{name}_{place}": list(column) for place, column in enumerate(values.T)}
    return flat


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    writers: list[Any] = []

    def write(columns: "Columns") -> None:
        arrays = {
            name: values
            if isinstance(values, list) or values.ndim == 1
            else pyarrow.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])
            for name, values in columns.items()
        }
        table = pyarrow.table(arrays)
        if not writers:
            writers.append(ParquetWriter(path, table.schema))
        writers[0].write_table(table)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()

"""``figures``: the papers' figures of any checkpoint, on one's own images."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_lightning.commands.checks import check_counts, check_folder, device_called
from mae_lightning.commands.evaluate import are_same
from mae_lightning.commands.facts import add_facts, facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mae_lightning.data.manifest import Manifest
    from mae_lightning.data.sources import Source
    from mae_lightning.pictures.subject import Model, Subject

NAMES = (
    "reconstructions",
    "ratios",
    "masks",
    "filters",
    "positions",
    "attention_distance",
    "attention",
    "features",
    "sincos",
    "neighbours",
    "curves",
)
SLIDER = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Mask ratios of the page's slider."""
BATCH_SIZE = 64
CAPTIONS = {
    "neighbours": "Left the query, then its nearest by cosine similarity. Look for the same kind of thing in another"
    " pose; neighbours that only share brightness or outline mean pixel-like features.",
    "curves": "The band is one standard deviation over seeds. Compare runs where the bands part, and mind that the"
    " masked loss compares only at one target and mask ratio.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file, a folder or a timm name")
    parser.add_argument("--data", required=True, help="images: a catalogue name, manifest, shards, folder, image")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the figures, PNG and SVG")
    parser.add_argument(
        "--which", nargs="+", choices=NAMES, metavar="NAME", help="of %(choices)s; by default all that apply"
    )
    parser.add_argument("--html", action="store_true", help="also one self-contained page, DIR/index.html")
    images = parser.add_argument_group("images")
    images.add_argument("--num-images", type=int, default=6, help="images drawn, chosen by the seed (default 6)")
    images.add_argument("--keys", nargs="+", metavar="KEY", help="images drawn, by their names in the shard or folder")
    images.add_argument("--num-statistics", type=int, default=64, help="images of attention's statistics (default 64)")
    images.add_argument("--crop-fraction", type=float, default=1.0, help="share of the shorter side: ImageNet 0.875")
    images.add_argument("--seed", type=int, default=0, help="of the choice of images and of the masks")
    masks = parser.add_argument_group("reconstructions")
    masks.add_argument("--mask-ratio", type=float, help="by default 0.75, SimMIM's 0.6")
    masks.add_argument(
        "--statistics", choices=("visible", "truth"), default="visible", help="where hidden patches' moments come from"
    )
    more = parser.add_argument_group("single figures")
    more.add_argument("--beside", nargs="+", default=(), metavar="CHECKPOINT", help="positions: more checkpoints")
    more.add_argument("--bank", help="neighbours: where they are looked for; by default the training split")
    more.add_argument("--max-bank", type=int, default=5000, help="neighbours: images of the bank (default 5000)")
    more.add_argument("--num-neighbours", type=int, default=7, help="neighbours: of each image (default 7)")
    more.add_argument("--runs", nargs="+", type=Path, metavar="DIR", help="curves: runs, by default the checkpoint's")
    more.add_argument("--reference", nargs="+", type=Path, default=(), metavar="DIR", help="curves: runs drawn faint")
    more.add_argument("--metrics", nargs="+", metavar="METRIC", help="curves: by default val/loss and train/loss")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add_facts(parser)


@dataclass(frozen=True)
class Images:
    """Images of a source, as the model takes them.

    Attributes:
        source: Where they are from.
        model: What they are for.
        crop_fraction: Share of the shorter side that is kept.
    """

    source: "Source"
    model: "Model"
    crop_fraction: float

    def batches(self, manifest: "Manifest") -> Any:
        """All samples of a part of the source, once."""
        from mae_lightning.evaluation.features import cropped_batches

        card = self.model.card
        return cropped_batches(manifest, card.image_size, card.num_channels, self.crop_fraction, BATCH_SIZE)

    def load(self, rows: Sequence[int]) -> tuple[Any, Any]:
        """Normalised images on the model's device and their places in the data set, in the order of the rows."""
        import numpy as np
        import torch

        device = self.model.normalize.mean.device
        found = {}
        for batch in self.batches(self.source.manifest.select(np.unique(np.array(rows, np.int64)))):
            for place in batch["valid"].nonzero().flatten().tolist():
                found[self.source.manifest.row_of(int(batch["index"][place]))] = batch["image"][place]
        images = self.model.normalize(torch.stack([found[row] for row in rows]).to(device))
        index = torch.tensor([int(self.source.manifest.place[row]) for row in rows], device=device)
        return images, index


def run(args: argparse.Namespace) -> int:
    """Draws what applies, and says in a line each what does not and why."""
    from mae_lightning.pictures.gallery import FIGURES
    from mae_lightning.pictures.style import NotDrawnError, write_figure

    _check(args)
    subject, source = _subject(args)
    draw: dict[str, Callable[[Subject], Figure]] = {name: drawing.draw for name, drawing in FIGURES.items()}
    draw["neighbours"] = lambda subject: _neighbours(subject, source, args)
    draw["curves"] = lambda subject: _curves(args)
    drawn: list[str] = []
    absent: dict[str, str] = {}
    for name in args.which or NAMES:
        try:
            paths = write_figure(draw[name](subject), args.out, name)
        except NotDrawnError as reason:
            absent[name] = str(reason)
            print(f"{name}: not drawn: {reason}", flush=True)
            continue
        drawn.append(name)
        print(f"{name}: {' '.join(map(str, paths))}", flush=True)
    if not drawn:
        raise ValueError("no figure could be drawn: " + "; ".join(f"{name}: {why}" for name, why in absent.items()))
    if args.html:
        print(f"page: {_write_page(subject, drawn, absent, args.out)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses before the work what would fail after it."""
    check_counts(args, num_images=1, num_statistics=1, max_bank=1, num_neighbours=1)
    check_folder(args.out)


def _subject(args: argparse.Namespace) -> "tuple[Subject, Source]":
    from mae_lightning.data.sources import open_source
    from mae_lightning.data.statistics import some_rows
    from mae_lightning.pictures.subject import RATIOS, Subject, open_model
    from mae_lightning.weights.content import Said

    model = open_model(args.checkpoint, Said(**facts(args))).to(device_called(args.device))
    beside = {}
    for checkpoint in args.beside:
        other = open_model(checkpoint)
        beside[other.name if other.name != model.name else f"{other.name}, {checkpoint}"] = other.encoder
    source = open_source(args.data, "val")
    images = Images(source, model, args.crop_fraction)
    rows = _rows_called(source, args.keys) if args.keys else some_rows(source.manifest, args.num_images, args.seed)
    shown, index = images.load(list(map(int, rows)))
    many, _ = images.load(some_rows(source.manifest, args.num_statistics, args.seed).tolist())
    ratio = args.mask_ratio if args.mask_ratio is not None else RATIOS.get(model.card.objective, 0.75)
    subject = Subject(model, _name(source), shown, index, many, ratio, args.seed, args.statistics, beside)
    return subject, source


def _rows_called(source: "Source", keys: Sequence[str]) -> list[int]:
    """The rows of samples by name.

    Raises:
        ValueError: There is no such sample.
    """
    wanted = set(keys)
    place = {key: row for row, key in enumerate(source.manifest.keys) if key in wanted}
    for key in keys:
        if key not in place:
            example = source.manifest.keys[0]
            raise ValueError(f"{source.name} has no sample '{key}'; its keys are such as '{example}'")
    return [place[key] for key in keys]


def _name(source: "Source") -> str:
    """A source for titles: its folder's or file's name, and its split."""
    split = f":{source.split}" if source.split and not source.name.endswith(f":{source.split}") else ""
    return (Path(source.name).name or source.name) + split


def _neighbours(subject: "Subject", source: "Source", args: argparse.Namespace) -> "Figure":
    """Each image with its nearest in the bank."""
    from mae_lightning.data.sources import open_source
    from mae_lightning.data.statistics import some_rows
    from mae_lightning.pictures.features import image_features, nearest_neighbours
    from mae_lightning.pictures.sheet import sheet

    bank_source = open_source(args.bank or _bank_of(args.data), "train")
    images = Images(bank_source, subject.model, args.crop_fraction)
    rows = some_rows(bank_source.manifest, args.max_bank, args.seed)
    bank, index = _bank_features(images, bank_source.manifest.select(rows))
    queries = image_features(subject.model.encoder, subject.images)
    is_same = are_same(bank_source.manifest, source.manifest)
    cosine, places = nearest_neighbours(bank, queries, args.num_neighbours + is_same)
    near = [
        [(float(c), int(index[p])) for c, p in zip(*pair, strict=True) if not is_same or int(index[p]) != int(own)]
        for *pair, own in zip(cosine, places, subject.index, strict=True)
    ]
    columns, notes = {"query": subject.pixels}, [_classes(source, subject.index.tolist())]
    for rank in range(min(args.num_neighbours, min(map(len, near)))):
        found = [of_image[rank] for of_image in near]
        shown, _ = images.load([bank_source.manifest.row_of(place) for _, place in found])
        columns[f"neighbour {rank + 1}"] = subject.model.normalize.undo(shown).clamp(0, 1).cpu()
        classes = _classes(bank_source, [place for _, place in found])
        notes.append([f"{value:.2f} {name}".strip() for (value, _), name in zip(found, classes, strict=True)])
    detail = f"cosine of mean patch tokens after the final norm; bank: {len(bank):,} images of {_name(bank_source)}"
    return sheet(columns, subject.title("Nearest neighbours"), detail, notes)


def _bank_of(data: str) -> str:
    """The training split beside held-out data; the data themselves where there is none."""
    from mae_lightning.data.sources import splits_of

    bare, _, split = data.rpartition(":")
    name = bare if bare and split in splits_of(bare) else data
    splits = splits_of(name)
    if "train" in splits:
        return f"{name}:train"
    return f"{name}:val" if name == data and "val" in splits else data


def _bank_features(images: Images, manifest: "Manifest") -> tuple[Any, Any]:
    """A feature of each sample, and its place in the data set."""
    import torch

    from mae_lightning.pictures.features import image_features

    normalize = images.model.normalize
    device = normalize.mean.device
    features, index = [], []
    for batch in images.batches(manifest):
        valid = batch["valid"]
        features.append(image_features(images.model.encoder, normalize(batch["image"][valid].to(device))))
        index.append(batch["index"][valid])
    return torch.cat(features), torch.cat(index)


def _classes(source: "Source", places: Sequence[int]) -> list[str]:
    """Names of the classes of samples; empty where there are none."""
    labels = [int(source.manifest.label[source.manifest.row_of(place)]) for place in places]
    names = source.class_names
    return ["" if label < 0 else names[label] if names else f"class {label}" for label in labels]


def _curves(args: argparse.Namespace) -> "Figure":
    """Figures of runs over their steps; runs that differ in their seed alone are one line."""
    from mae_lightning.pictures.style import NotDrawnError
    from mae_lightning.pictures.training_curves import draw_curves, spread_of
    from mae_lightning.tracking.runs import read_run

    folders = args.runs or _run_of(args.checkpoint)
    if not folders:
        raise NotDrawnError("the checkpoint does not lie in a run's folder with metrics.csv; name runs with --runs")
    groups = _by_settings([read_run(folder) for folder in folders])
    references = _by_settings([read_run(folder) for folder in args.reference], ", reference")
    panels = {}
    for metric in args.metrics or ("val/loss", "train/loss"):
        curves = {
            label: [curve for curve in (_curve(record, metric) for record in records) if curve is not None]
            for label, records in (groups | references).items()
        }
        panels[metric] = {label: spread_of(found) for label, found in curves.items() if found}
        if args.metrics and not panels[metric]:
            raise ValueError(f"no run has {metric}")
    panels = {metric: curves for metric, curves in panels.items() if curves}
    if not panels:
        raise NotDrawnError("the runs have neither val/loss nor train/loss; name figures with --metrics")
    band = "; band: one standard deviation over seeds" if any(len(records) > 1 for records in groups.values()) else ""
    title = f"Training curves: {', '.join(groups)}"
    return draw_curves(panels, references.keys(), title, f"figures as logged, not smoothed{band}")


def _run_of(checkpoint: str) -> list[Path]:
    """The folder of the run that wrote a checkpoint, where it has one."""
    path = Path(checkpoint)
    folder = path.parents[1] if path.parent.name == "checkpoints" else path.parent
    return [folder] if all((folder / name).is_file() for name in ("config.yaml", "metrics.csv")) else []


def _by_settings(records: Sequence[Any], suffix: str = "") -> dict[str, list[Any]]:
    """Runs grouped by their settings, by the name of the first and the number of seeds.

    A name has as many of the folders above it as tell the groups apart.
    """
    groups: list[tuple[dict[str, Any], list[Any]]] = []
    for record in records:
        settings = _settings(record.config)
        group = next((members for known, members in groups if known == settings), None)
        if group is None:
            groups.append((settings, [record]))
        else:
            group.append(record)
    firsts = [members[0].folder.resolve().parts for _, members in groups]
    depth = next(depth for depth in count(1) if len({parts[-depth:] for parts in firsts}) == len(firsts))
    return {
        "/".join(parts[-depth:]) + (f" ({len(members)} seeds)" if len(members) > 1 else "") + suffix: members
        for parts, (_, members) in zip(firsts, groups, strict=True)
    }


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """What was set beside seed and folder; a run that it started from counts by its settings, too."""
    from mae_lightning.tracking.runs import read_run

    settings = {key: value for key, value in config.items() if key not in ("seed_everything", "run")}
    arguments = settings.get("model", {}).get("init_args", {})
    for folder in _run_of(arguments.get("init_from") or ""):
        before = read_run(folder).config
        start = {key: value for key, value in before.items() if key not in ("seed_everything", "run")}
        settings["model"] = settings["model"] | {"init_args": arguments | {"init_from": start}}
    return settings


def _curve(record: Any, metric: str) -> Any:
    """A figure of a run; None where it was not logged."""
    import numpy as np

    from mae_lightning.pictures.training_curves import Curve

    rows = {int(row["step"]): row[metric] for row in record.rows if metric in row}
    return Curve(np.array(list(rows)), np.array(list(rows.values()))) if rows else None


def _write_page(subject: "Subject", drawn: Sequence[str], absent: dict[str, str], folder: Path) -> Path:
    """The page with all figures that were drawn."""
    from mae_lightning.pictures.gallery import FIGURES
    from mae_lightning.pictures.page import Section, page

    captions = CAPTIONS | {name: drawing.caption for name, drawing in FIGURES.items()}
    sections = []
    for name in drawn:
        if name == "reconstructions":
            sections.append(_slider(subject, captions[name]))
        else:
            sections.append(Section(name, captions[name], {"figure": (folder / f"{name}.png").read_bytes()}))
    path = folder / "index.html"
    path.write_text(page(f"{subject.model.name} on {subject.data}", sections, absent), encoding="utf-8")
    return path


def _slider(subject: "Subject", caption: str) -> Any:
    """The reconstructions at every ratio of the slider that leaves something to see, and the one that was drawn."""
    from mae_lightning.pictures.gallery import FIGURES
    from mae_lightning.pictures.page import Section
    from mae_lightning.pictures.reconstructions import is_possible
    from mae_lightning.pictures.style import picture_bytes

    count = subject.masked.num_patches
    ratios = sorted(ratio for ratio in {*SLIDER, subject.mask_ratio} if is_possible(count, ratio))
    frames = {}
    for ratio in ratios:
        figure = FIGURES["reconstructions"].draw(replace(subject, mask_ratio=ratio))
        frames[f"{100 * ratio:g} % masked"] = picture_bytes(figure)
    return Section("reconstructions", caption, frames, ratios.index(subject.mask_ratio))

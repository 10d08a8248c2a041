"""``bench step``: how fast a training step is, and where the time goes."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mae_lightning.cli.bench_data import check_rounds
from mae_lightning.cli.kept import add_out, check_out, keep

if TYPE_CHECKING:
    import torch

    from mae_lightning.planning.benchmark.comparisons import Comparison
    from mae_lightning.planning.benchmark.figures import Table
    from mae_lightning.planning.benchmark.ways import Build
    from mae_lightning.tasks import MaskedPretraining

PRECISIONS, COMPILED = ("fp32", "bf16", "fp16"), ("none", "blocks", "whole", "graphs")
BATCH_SIZES = {"cpu": [8], "cuda": [256]}
NUM_CLASSES = 1000
"""Of data that are not here; no masked model takes them."""

EPILOG = """\
A step is what fit does with a batch: the copy to the device, normalisation, masks, loss, gradients and AdamW, on fresh
noise in bytes; logging is left out. All contenders take turns in every round, each turn after a step that is not timed,
and each ratio is the median of the rounds' own ratios. Others get images that the host has normalised beforehand, as
their input does, and torch's AdamW as it comes, as the official code has it. On a CPU our step keeps what it frees, as
fit does there, and each of the others has a process of its own, with memory as it comes.

Rates of the device are measured between the turns: a large matrix product in the step's precision, and a large copy.
What a step moves is reckoned as if every operation read its inputs from memory and wrote its results there, once each;
caches save some of it, so that on a CPU its share of the copy rate can pass 100 %. Memory on a CPU is that of a process
of its own, without what it had after its imports; on a GPU what torch had allocated at most.

  mae-lightning bench step --encoder base/16 --compare --rounds 9
  mae-lightning bench step --config imagenet/pretrain_base --batch-sizes 64,256 --compile none,blocks,whole
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds its options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        "--config",
        action="append",
        default=[],
        metavar="CONFIG",
        help="recipe whose model is measured; more overlay it",
    )
    add("--encoder", metavar="NAMES", help="in place of a config, such as base/16,large/16,huge/14 (default: base/16)")
    add("--image-size", type=int, default=224, metavar="PIXELS", help="without a config (default: 224)")
    add("--batch-sizes", type=_counts, metavar="N,N", help="images a step (default: 8 on a CPU, 256 on a GPU)")
    add("--precision", choices=PRECISIONS, default="bf16", help="of our step; weights are fp32 (default: bf16)")
    add("--device", choices=tuple(BATCH_SIZES), help="(default: the GPU, where there is one)")
    add(
        "--compile",
        type=_compiled,
        default=["none"],
        metavar="HOW,HOW",
        help=f"of {', '.join(COMPILED)} (default: none)",
    )
    add("--rounds", type=int, default=9, metavar="N", help="at least 7 (default: 9)")
    modes = parser.add_mutually_exclusive_group()
    for mode, text in MODES.items():
        modes.add_argument(mode, action="store_true", help=text)
    add_out(parser)


MODES = {
    "--compare": "against Hugging Face's ViTMAE, and lightly's where it is installed; on a GPU also the official way",
    "--techniques": "each of our techniques against the plain way, one at a time",
    "--table-2": "the paper's Table 2 again: mask tokens in the encoder, or not, and decoders of 8 blocks and 1",
}


def run(args: argparse.Namespace) -> int:
    """Measures, and prints a table."""
    _check(args)
    import torch

    from mae_lightning.planning.allocator import keep_freed_memory
    from mae_lightning.planning.benchmark.figures import compare, device_name, plain_figures
    from mae_lightning.planning.benchmark.wording import lines_of

    device = _device(args.device)
    comparisons = _comparisons(args, device.type)
    if device.type == "cpu":
        keep_freed_memory()
    print(f"{device_name(device)}, torch {torch.__version__}")
    tables: list[Table] = []
    for comparison in comparisons:
        for batch_size in args.batch_sizes or BATCH_SIZES[device.type]:
            tables.append(compare(comparison, batch_size, args.rounds, device))
            print("\n".join(["", *lines_of(tables[-1])]), flush=True)
    for path in args.out:
        keep(path, partial(plain_figures, tables, device), partial(_draw, tables, device_name(device)))
    return 0


def _check(args: argparse.Namespace) -> None:
    check_rounds(args.rounds)
    if args.config and (args.encoder or args.table_2):
        raise ValueError("--config has a model of its own: leave out --encoder and --table-2")
    check_out(args.out)


def _device(name: str | None) -> "torch.device":
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _comparisons(args: argparse.Namespace, device: str) -> list["Comparison"]:
    from mae_lightning.planning.benchmark import comparisons

    if args.table_2:
        encoders = (args.encoder or ",".join(comparisons.TABLE_2)).split(",")
        return [comparisons.table_2(encoder, args.image_size, args.precision, args.compile[0]) for encoder in encoders]
    found = []
    for name, build in _models(args).items():
        if args.compare or args.techniques:
            of = comparisons.with_peers if args.compare else comparisons.techniques
            found.append(of(name, build, args.precision, args.compile, device))
        else:
            found.append(comparisons.alone(name, build, args.precision, args.compile))
    return found


def _models(args: argparse.Namespace) -> dict[str, "Build"]:
    from mae_lightning.planning.benchmark.comparisons import named_model

    if args.config:
        return {"+".join(args.config): partial(configured_model, tuple(args.config), tuple(args.allowed_imports))}
    encoders = (args.encoder or "base/16").split(",")
    return {encoder: partial(named_model, encoder, args.image_size) for encoder in encoders}


def configured_model(configs: tuple[str, ...], allowed_imports: tuple[str, ...], device: str) -> "MaskedPretraining":
    """The model of a recipe, whose data need not be here.

    Raises:
        ValueError: It is not one of masked pretraining.
    """
    from mae_lightning.cli.configured import read_configured
    from mae_lightning.cli.imports import ImportPolicy
    from mae_lightning.cli.quiet import hush
    from mae_lightning.tasks import MaskedPretraining

    hush()
    configured = read_configured([f"--config={name}" for name in configs], ImportPolicy(allowed_imports))
    try:
        data: object = configured.build_data()
    except FileNotFoundError:
        data = configured.facts_without_data("bench step", NUM_CLASSES)
    task = configured.build_model(data, device)
    if not isinstance(task, MaskedPretraining):
        raise ValueError(f"bench step measures masked pretraining, and the config's model is {type(task).__name__}")
    return task


def _draw(tables: list["Table"], device: str, path: Path) -> None:
    from mae_lightning.planning.benchmark.picture import write

    write(tables, device, path)


def _counts(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",")]
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text} has a size less than 1")
    return sizes


def _compiled(text: str) -> list[str]:
    ways = text.split(",")
    if not set(ways) <= set(COMPILED):
        raise argparse.ArgumentTypeError(f"{text} is not of {', '.join(COMPILED)}")
    return ways

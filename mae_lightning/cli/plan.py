"""``plan``: what a recipe costs on machines that one does not have yet."""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mae_lightning.cli.arguments import add_settings, config_names
from mae_lightning.cli.kept import add_out, check_out, keep
from mae_lightning.planning.hardware import GPUS, PRECISIONS, precision_of

if TYPE_CHECKING:
    from mae_lightning.cli.configured import Configured
    from mae_lightning.planning.communication import Link
    from mae_lightning.planning.plan import Plan
    from mae_lightning.planning.setting import DataFacts, Setting

EFFICIENCY = 0.4
KNOWN = "imagenet"
KNOWN_IMAGES, KNOWN_CLASSES = 1_281_167, 1000
"""ImageNet-1k's training split (Russakovsky et al. 2015, arXiv 1409.0575), for shards that are named after it."""

EPILOG = """\
Takes what follows fit: configs, then settings such as --trainer.max_epochs=400. Needs neither a GPU nor the data:

  mae-lightning plan --config imagenet/pretrain_large --gpu h100 --devices 8 --nodes 8

Costs of a step are counted on tensors without memory. Times follow from published rates and an efficiency, of which 0.4
takes a tuned program and data that keep up; the official pretraining of ViT-Large (800 epochs in about 42 hours on 64
V100, says its PRETRAIN.md) reached 0.11. Best is the pace of one GPU, measured: train/images_per_second in a run's
metrics.csv is that of all. The network between real nodes is measured with one process on each, and then planned with:

  torchrun --nnodes=2 --nproc-per-node=1 ... -m mae_lightning plan --measure-network --out link.json
  mae-lightning plan --config imagenet/pretrain_large --link link.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.usage = "%(prog)s --config RECIPE [--config OVERLAY] [options] [--key=value]"
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add_settings(parser)
    add("--gpu", choices=GPUS, default="h100", help="kind of GPU (default: h100)")
    add("--devices", type=_count, metavar="N", help="GPUs a node (default: the config's, else 1)")
    add("--nodes", type=_count, metavar="N", help="(default: the config's)")
    add("--strategy", choices=("ddp", "fsdp"), help="(default: the config's)")
    add("--precision", choices=PRECISIONS, help="(default: the config's, else bf16-mixed)")
    add("--activation-checkpointing", action="store_true", help="compute blocks again in the backward pass")
    add("--efficiency", type=_share, default=EFFICIENCY, metavar="SHARE", help="of the rate (default: 0.4)")
    add("--images-per-second", type=_positive, metavar="PACE", help="of one GPU, measured, in place of the efficiency")
    add("--tflops", type=_positive, metavar="RATE", help="of dense products, measured, in place of the published one")
    add("--network", type=_positive, metavar="GBIT", help="between nodes, Gbit/s a node (default: the usual machine's)")
    add("--link", type=Path, metavar="FILE", help="the same as --measure-network has found it")
    add("--images", type=_count, metavar="N", help="of an epoch, where the data are not here")
    add("--classes", type=_count, metavar="N", help="likewise")
    add("--cores", type=_count, metavar="N", help="of a node, to know whether they keep up")
    add("--bench", type=Path, metavar="FILE", help="what bench data --out has measured, to count cores by")
    add_out(parser)
    add("--measure-network", action="store_true", help="measure all-reduces among the processes of torchrun instead")


def run(args: argparse.Namespace) -> int:
    """Plans, prints a table, and keeps what is asked for."""
    check_out(args.out)
    if args.measure_network:
        return _measure_network(args.out)
    if not config_names(args.settings):
        raise ValueError("nothing to plan: give --config RECIPE, such as imagenet/pretrain_large")
    from mae_lightning.planning.wording import lines_of

    plan = _plan(args)
    print("\n".join(lines_of(plan)))
    for path in args.out:
        keep(path, plan.figures, partial(_draw, plan))
    return 0


def _draw(plan: "Plan", path: Path) -> None:
    from mae_lightning.planning.picture import write

    write(plan, path)


def _plan(args: argparse.Namespace) -> "Plan":
    from mae_lightning.cli.configured import read_configured
    from mae_lightning.cli.imports import ImportPolicy
    from mae_lightning.cli.quiet import hush
    from mae_lightning.data.batching import split_batch
    from mae_lightning.planning.feeding import images_a_core_of
    from mae_lightning.planning.levers import with_shallow_decoder
    from mae_lightning.planning.plan import Length, make_plan
    from mae_lightning.planning.step import count_step

    hush()
    measured = images_a_core_of(args.bench) if args.bench else None
    configured = read_configured(args.settings, ImportPolicy(args.allowed_imports))
    setting = _setting(args, configured)
    facts = _facts(args, configured)
    split_batch(facts.global_batch_size, setting.size)  # fails here, before anything is counted
    task = configured.build_model(facts)
    shallow = with_shallow_decoder(task)
    costs = [
        None if each is None else count_step(each, facts.image_size, facts.num_channels, setting.precision)
        for each in (task, shallow)
    ]
    assert costs[0] is not None
    if args.images_per_second:
        setting = _at_pace(setting, costs[0].flops, args.images_per_second)
    trainer = configured.trainer
    return make_plan(
        "+".join(config_names(args.settings)),
        costs[0],
        setting,
        facts,
        Length(_limit(trainer["max_epochs"]), _limit(trainer["max_steps"])),
        images_a_core=measured,
        cores=args.cores,
        shallow=costs[1],
    )


def _at_pace(setting: "Setting", flops: float, pace: float) -> "Setting":
    """With the efficiency that a measured pace comes to."""
    efficiency = pace * flops / (setting.tflops * 1e12)
    if efficiency > 1:
        raise ValueError(
            f"--images-per-second {pace:g} is {efficiency:.3g} times what {setting.tflops:g} TFLOP/s allow;"
            " give that of one GPU, and its kind by --gpu or its rate by --tflops"
        )
    return replace(setting, efficiency=efficiency)


def _limit(value: Any) -> int | None:
    """The Trainer's limits: none, or -1, is no limit."""
    return None if value is None or int(value) < 0 else int(value)


# ---------------------------------------------------------------- machines


def _setting(args: argparse.Namespace, configured: "Configured") -> "Setting":
    """The machines: what was asked for, else what the config says."""
    from mae_lightning.planning.communication import published_network, read_link
    from mae_lightning.planning.setting import Setting

    trainer, gpu = configured.trainer, GPUS[args.gpu]
    precision = precision_of(args.precision or trainer["precision"] or "bf16-mixed")
    return Setting(
        gpu=gpu,
        devices=args.devices or _devices(trainer["devices"]),
        nodes=args.nodes or int(trainer["num_nodes"]),
        strategy=args.strategy or _strategy(trainer["strategy"]),
        precision=precision,
        efficiency=args.efficiency,
        tflops=args.tflops or precision.tflops(gpu),
        recomputes=args.activation_checkpointing or "ActivationCheckpointing" in str(trainer["callbacks"]),
        network=read_link(args.link) if args.link else published_network(args.network or gpu.network),
        max_micro_batch_size=configured.data.get("max_micro_batch_size"),
    )


def _devices(value: Any) -> int:
    """GPUs a node: a number, a list of them, or as many as there are, which nobody knows here."""
    if isinstance(value, list):
        return len(value)
    return int(value) if str(value).isdigit() and int(value) else 1


def _strategy(value: Any) -> Literal["ddp", "fsdp"]:
    sharded = ("FullySharded", "ModelParallel", "FSDP", "fsdp")
    return "fsdp" if any(name in str(value) for name in sharded) else "ddp"


# ---------------------------------------------------------------- data


def _facts(args: argparse.Namespace, configured: "Configured") -> "DataFacts":
    """Of the data, or of what they are known to be; a line says which."""
    if args.images is None:
        try:
            return _facts_of(configured.build_data(), configured.seed)
        except FileNotFoundError as error:
            print(f"{error}: planned without the data{_assumed(args, configured)}")
    return _facts_without_data(args, configured)


def _facts_of(data: Any, seed: int) -> "DataFacts":
    from mae_lightning.planning.setting import DataFacts

    if "train" not in data.sources:
        raise ValueError("no train data: name some with `data.train`")
    manifest = data.sources["train"].manifest
    sizes = manifest.size[manifest.size > 0]
    return DataFacts(
        image_size=data.image_size,
        num_channels=data.num_channels,
        num_classes=data.num_classes,
        global_batch_size=data.global_batch_size,
        seed=seed,
        num_images=len(manifest) * data.repeats,
        image_bytes=float(sizes.mean()) if len(sizes) else None,
        class_names=data.class_names,
    )


def _is_known(configured: "Configured") -> bool:
    return KNOWN in str(configured.data.get("train")).lower()


def _assumed(args: argparse.Namespace, configured: "Configured") -> str:
    if _is_known(configured):
        return f", as ImageNet-1k: {KNOWN_IMAGES:,} images, {args.classes or KNOWN_CLASSES:,} classes"
    return "; --images N says how many there are"


def _facts_without_data(args: argparse.Namespace, configured: "Configured") -> "DataFacts":
    known = _is_known(configured)
    classes = args.classes or (KNOWN_CLASSES if known else None)
    if classes is None and "num_classes" in configured.parsed.model.init_args:
        raise ValueError("the number of classes is unknown, because the data are not here; give --classes N")
    return configured.facts_without_data("plan", classes, args.images or (KNOWN_IMAGES if known else None))


# ---------------------------------------------------------------- measuring


def _measure_network(out: list[Path]) -> int:
    """Measures all-reduces, fits the link, and on rank 0 prints both."""
    if "RANK" not in os.environ:
        raise ValueError(
            "--measure-network needs processes: torchrun --nproc-per-node=2 -m mae_lightning plan --measure-network"
        )
    import torch
    import torch.distributed as dist

    from mae_lightning.planning.communication import MEASURED_SIZES, fit_link, measure_all_reduce

    is_cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if is_cuda else torch.device("cpu")
    dist.init_process_group("nccl" if is_cuda else "gloo", device_id=device if is_cuda else None)
    try:
        count = dist.get_world_size()
        times = measure_all_reduce(MEASURED_SIZES, device)
        link = fit_link(times, count)
        if dist.get_rank() == 0:
            print("\n".join(_measured(times, link, count)))
            for path in out:
                path.write_text(json.dumps({**asdict(link), "processes": count, "seconds": times}) + "\n")
    finally:
        dist.destroy_process_group()
    return 0


def _measured(times: dict[int, float], link: "Link", count: int) -> Iterator[str]:
    yield f"{count} processes: latency {link.latency * 1e6:,.0f} us, bandwidth {link.bandwidth / 1e9:.3g} GB/s"
    for size, seconds in times.items():
        fitted = 2 * link.gather(float(size), count)
        yield f"  {size / 2**20:>8.3f} MiB  {seconds * 1e3:>9.3f} ms measured  {fitted * 1e3:>9.3f} ms fitted"


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _share(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return float(text)

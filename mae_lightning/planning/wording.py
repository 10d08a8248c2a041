"""A plan as text."""

from collections.abc import Iterator

from mae_lightning.planning.hardware import GIB
from mae_lightning.planning.plan import HOUR, Plan


def lines_of(plan: Plan) -> list[str]:
    """The plan as lines for people."""
    return [*_head(plan), "", *_memory(plan), "", *_run(plan), "", *_scaling(plan), "", *_levers(plan)]


def _head(plan: Plan) -> Iterator[str]:
    setting, cost, facts = plan.setting, plan.cost, plan.facts
    nodes = f"{setting.nodes} nodes of {setting.devices} GPUs" if setting.nodes > 1 else f"{setting.devices} GPU"
    plural = "s" if setting.nodes == 1 and setting.devices > 1 else ""
    extra = ", activation checkpointing" if setting.recomputes else ""
    strategy = f"{setting.strategy}, " if setting.size > 1 else ""
    yield f"{plan.name} on {nodes}{plural}, {setting.gpu.title}: {strategy}{setting.precision.name}{extra}"
    yield (
        f"taken: {setting.efficiency:.0%} of {setting.tflops:,.0f} TFLOP/s;"
        f" {setting.gpu.link:,.0f} GB/s inside a node"
        f" and {setting.network.bandwidth / 1e9:,.0f} GB/s (as reached) between nodes"
    )
    trained = "" if cost.trained == cost.parameters else f", {cost.trained / 1e6:,.2f} M of them train"
    yield f"model    {cost.parameters / 1e6:,.2f} M parameters{trained}"
    yield (
        f"compute  {_rounded(cost.flops / 1e9)} GFLOP an image:"
        f" {_rounded(cost.forward_flops / 1e9)} forward, {_rounded(cost.backward_flops / 1e9)} backward"
    )
    factors = f"GPUs {setting.size} x images {plan.micro_batch:,} x passes {plan.accumulation}"
    yield f"batch    {facts.global_batch_size:,}: {factors}"


def _memory(plan: Plan) -> Iterator[str]:
    """The parts, a column a strategy."""
    parts = {name: memory.parts(plan.micro_batch) for name, memory in plan.memory.items()}
    names = list(dict.fromkeys(name for part in parts.values() for name in part))
    width = max(map(len, [*names, "largest micro-batch"]))

    def row(name: str, cells: list[str]) -> str:
        return f"  {name:<{width}}" + "".join(f"{cell:>10}" for cell in cells)

    titles = list(parts) if plan.setting.size > 1 else [""]
    yield f"{'memory of a GPU, GiB':<{width + 2}}" + "".join(f"{title:>10}" for title in titles)
    for name in names:
        yield row(name, [f"{part.get(name, 0) / GIB:,.2f}" for part in parts.values()])
    memories = plan.memory.values()
    yield row("together", [f"{memory.total(plan.micro_batch) / GIB:,.2f}" for memory in memories])
    yield row("usable", [f"{memory.usable / GIB:,.2f}" for memory in memories])
    yield row("largest micro-batch", [f"{memory.largest_micro_batch:,}" for memory in memories])
    if not plan.fits:
        yield "DOES NOT FIT: not even one image; what follows is reckoned as if one did"


def _run(plan: Plan) -> Iterator[str]:
    time, needs = plan.time, plan.feeding
    yield (
        f"a step   {time.total:,.3g} s: {time.computing:,.3g} computing, {time.optimiser:,.3g} optimiser,"
        f" {time.exposed:,.3g} waiting for {time.sending:,.3g} s of communication"
    )
    yield f"speed    {plan.images_per_second:,.0f} images/s, {plan.images_per_second / plan.setting.size:,.0f} a GPU"
    if plan.steps is None or plan.hours is None or plan.gpu_hours is None:
        yield "run      unknown length: give --images, and trainer.max_epochs or max_steps"
    else:
        hours, gpu_hours = _rounded(plan.hours), _rounded(plan.gpu_hours)
        yield f"run      {plan.steps:,} steps: {hours} hours, {gpu_hours} GPU-hours, validation apart"
    source = "measured" if needs.is_measured else "ImageNet's JPEGs"
    yield (
        f"input    a node: {needs.images_per_second:,.0f} images/s, {needs.cores:,.1f} cores at"
        f" {needs.images_a_core:,.0f} images/s each ({source}), {needs.megabytes_per_second:,.0f} MB/s"
    )


def _scaling(plan: Plan) -> Iterator[str]:
    share = plan.micro_batch * plan.accumulation
    yield f"GPUs  nodes  images x passes    images/s     hours  efficiency  at {share} images a GPU"
    for row in plan.scaling:
        seconds = (plan.steps or 0) * plan.facts.global_batch_size / row.images_per_second
        hours = _rounded(seconds / HOUR) if seconds else ""
        split = f"{row.micro_batch} x {row.accumulation}"
        yield (
            f"{row.gpus:>4}  {row.nodes:>5}  {split:>15}  {row.images_per_second:>10,.0f}  {hours:>8}"
            f"  {row.efficiency:>10.1%}  {row.efficiency_at_same_share:>10.1%}"
        )


def _rounded(value: float) -> str:
    """Three digits, and those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _levers(plan: Plan) -> Iterator[str]:
    yield "what helps"
    width = max(len(lever.name) for lever in plan.levers)
    for lever in plan.levers:
        yield f"  {lever.name:<{width}}  {lever.effect}"

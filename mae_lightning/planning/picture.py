"""A plan's speed and efficiency over the number of GPUs, as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mae_lightning.pictures.style import COLOURS, FAINT, new_figure, styled, write_figure
from mae_lightning.planning.plan import Plan
from mae_lightning.planning.timing import Scaling

WIDTH, HEIGHT = 6.4, 2.6


@styled
def draw(plan: Plan) -> Figure:
    """Efficiency on the left, images a second on the right."""
    setting, share = plan.setting, plan.micro_batch * plan.accumulation
    figure = new_figure(
        WIDTH,
        HEIGHT,
        f"{plan.name} on {setting.gpu.title}, {setting.strategy}, {setting.precision.name}",
        f"Reckoned, not measured: {setting.efficiency:.0%} of {setting.tflops:,.0f} TFLOP/s, nodes of"
        f" {setting.node_size} GPUs, {setting.network.bandwidth / 1e9:,.0f} GB/s between nodes;"
        f" global batch {plan.facts.global_batch_size:,}",
    )
    left, right = figure.subplots(1, 2)
    gpus = [row.gpus for row in plan.scaling]
    _line(left, gpus, [100 * row.efficiency for row in plan.scaling], COLOURS[0], "same global batch", "o-")
    same = [100 * row.efficiency_at_same_share for row in plan.scaling]
    _line(left, gpus, same, COLOURS[1], f"{share} images on each GPU", "s--")
    left.set(ylim=(0, 105), ylabel="efficiency against one GPU, %")
    _line(right, gpus, [row.images_per_second for row in plan.scaling], COLOURS[0], "same global batch", "o-")
    _line(right, gpus, _ideal(plan.scaling), FAINT, "as many times one GPU", ":")
    right.set(yscale="log", ylabel="images/s")
    for panel in (left, right):
        panel.set(xscale="log", xlabel="GPUs")
        panel.set_xticks(gpus[::2], [str(count) for count in gpus[::2]])
        panel.minorticks_off()
        panel.axvline(setting.size, color=FAINT, linewidth=0.6)
        panel.legend()
    return figure


def write(plan: Plan, path: Path) -> None:
    """Writes the picture; the suffix says as what."""
    write_figure(draw(plan), path.parent, path.stem, [path.suffix])


def _line(panel: Any, places: list[int], values: list[float], color: str, label: str, style: str) -> None:
    panel.plot(places, values, style, color=color, label=label, markersize=3, linewidth=1)


def _ideal(rows: list[Scaling]) -> list[float]:
    return [rows[0].images_per_second / rows[0].gpus * row.gpus for row in rows]

"""A workspace on Weights & Biases for a project: what is worth watching, in sections."""

import json
from collections.abc import Sequence
from typing import Any

import wandb

from mae_lightning.tracking.loggers import is_logged_in
from mae_lightning.tracking.trial_board import column

STAGES = ("pretrain", "finetune", "probe")
CURVES = {
    "Losses": ("train/loss", "val/loss", "val/loss_zero", "val/loss_visible_mean"),
    "Evaluation": ("val/accuracy", "val/top5", "val/knn", "val/psnr"),
    "Optimisation": ("train/lr", "train/gradient_norm"),
    "Throughput": ("train/images_per_second", "train/data_wait_share"),
}
"""Sections and the figures in them, which runs of fit log as they are and trials behind the stage's name."""
PICTURES = "val/reconstructions"
FIGURES = ("trial/finetune_accuracy", "trial/probe_accuracy")
MISSING = "dashboards need W&B's library for them; install it: pip install 'mae-lightning[dashboards]'"
NOBODY = "ENTITY"


def build_workspace(entity: str, project: str, name: str, parameters: Sequence[str]) -> Any:
    """The workspace, nothing of it sent.

    Args:
        entity: The user or team whose project it is.
        project: The project.
        name: Of the workspace.
        parameters: The settings that a sweep varies, for its parallel coordinates.

    Raises:
        ValueError: The library is not installed.
    """
    try:
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as panels
    except ModuleNotFoundError as error:
        raise ValueError(MISSING) from error

    sections = [ws.Section(name=title, panels=_curves(panels, names)) for title, names in CURVES.items()]
    sections.append(ws.Section(name="Reconstructions", panels=[panels.MediaBrowser(media_keys=[PICTURES])]))
    settings = [panels.ParallelCoordinatesPlotColumn(metric=panels.Config(column(key))) for key in parameters]
    figures = [panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(key)) for key in FIGURES]
    bars = [panels.BarPlot(metrics=[key]) for key in FIGURES]
    sections.append(
        ws.Section(name="Sweeps", panels=[panels.ParallelCoordinatesPlot(columns=[*settings, *figures]), *bars])
    )
    for section in sections:
        section.is_open = True
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections)


def _curves(panels: Any, names: Sequence[str]) -> list[Any]:
    """A panel a figure of fit's runs, and one a figure for the stages of trials, over the stage's own steps."""
    own = [panels.LinePlot(title=name, x="Step", y=[name]) for name in names]
    staged = [
        panels.LinePlot(title=f"{stage}: {name}", x=f"{stage}/step", y=[f"{stage}/{name}"])
        for stage in STAGES
        for name in names
    ]
    return [*own, *staged]


def specification(workspace: Any) -> str:
    """The workspace as W&B stores it, as JSON."""
    content = json.loads(workspace._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps(content, indent=1) + "\n"


def known_entity() -> str | None:
    """Whose projects these are if none is named: the one who is logged in, if anyone is."""
    return str(wandb.Api().default_entity) if is_logged_in() else None

"""Position embeddings of a study's trained models, a map a trial (ViT, Figure 9)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mae_lightning.pictures.curves import SUFFIXES
from mae_lightning.pictures.positions import draw_similarities, position_similarities
from mae_lightning.pictures.style import NotDrawnError, write_figure
from mae_lightning.pictures.subject import open_model
from mae_lightning.tracking.comparison import Comparison
from mae_lightning.tracking.runs import LAST_CHECKPOINT
from mae_lightning.tracking.trials import TrialRecord


def draw_positions(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the maps side by side where the study is of them; what has no map is said in the picture.

    Args:
        comparison: The study.
        folder: Of the report.

    Returns:
        The PNG and the PDF; nothing where the study is of something else or no trial has a map.
    """
    if not comparison.study.shows_positions:
        return []
    panels: dict[str, Any] = {}
    absent: list[str] = []
    for line in comparison.lines:
        for trial in line.trials:
            name = f"{line.row.label}, seed {trial.seed}".replace(", ", "\n")
            try:
                panels |= _named(name, position_similarities(_encoder(trial)))
            except (NotDrawnError, FileNotFoundError) as reason:
                absent.append(f"{trial.folder.name}: {reason}")
    if not panels:
        return []
    detail = "; ".join(["the map at a row and column: similarity of the patch there with all others", *absent])
    figure = draw_similarities(panels, comparison.study.title, detail)
    return write_figure(figure, folder, f"{comparison.name.replace('/', '-')}-positions", SUFFIXES)


def _named(name: str, maps: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}\n{place}" if place else name: values for place, values in maps.items()}


def _encoder(trial: TrialRecord) -> Any:
    """Of the last stage that trained a model."""
    places = [trial.folder / stage["folder"] / LAST_CHECKPOINT for stage in trial.stages.values() if "config" in stage]
    if not places:
        raise NotDrawnError("it is known by its figures alone, without a checkpoint")
    return open_model(places[-1]).encoder

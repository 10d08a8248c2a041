"""The papers' ablations: what is varied, what is measured, and the figures that were published.

MAE is He et al. 2021, arXiv 2111.06377; ViT is Dosovitskiy et al. 2020, arXiv 2010.11929.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EQUAL = 0.2
"""Points of accuracy below which the paper's figures are taken for equal: the deviation over runs of the released
recipe is 0.08 (fine-tuning, 4 runs), which makes about 0.2 for a difference of two."""


@dataclass(frozen=True)
class Column:
    """A figure that is measured.

    Attributes:
        metric: Its name among a trial's figures; never a masked loss, which compares at one target and ratio only.
        title: The paper's word for it.
        percent: Whether it is a share, shown in percent.
        relative: Whether it is shown as a multiple of the first row's.
        digits: Decimals that are shown.
    """

    metric: str
    title: str
    percent: bool = True
    relative: bool = False
    digits: int = 1

    def __post_init__(self) -> None:
        assert not self.metric.endswith(("_loss", "_psnr")), self.metric


@dataclass(frozen=True)
class Row:
    """A setting that the paper gives figures for.

    Attributes:
        label: The paper's word for it.
        value: Of the study's axis, at the paper's scale.
        paper: Published figures by metric, shares in percent.
        small: The same of the axis at the scale of the shipped data, where it is another.
        is_default: Whether the others are compared with it.
    """

    label: str
    value: Any
    paper: Mapping[str, float] = field(default_factory=dict)
    small: Any = None
    is_default: bool = False


@dataclass(frozen=True)
class Study:
    """A table or figure.

    Attributes:
        title: What it asks.
        source: Where the published figures stand, and of which model.
        axis: The setting that is varied, by its dotted name without ``init_args``.
        rows: In the paper's order.
        columns: What is measured.
        is_curve: Whether the axis is a number that the paper draws a curve over.
        note: What to know when reading it.
        combined: Where several settings are varied, the word for each; a row then is a combination of them.
        shows_positions: Whether the paper's figure is of the trained models' position embeddings.
    """

    title: str
    source: str
    axis: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    is_curve: bool = False
    note: str = ""
    combined: Mapping[str, str] = field(default_factory=dict)
    shows_positions: bool = False


FINETUNE, LINEAR = "trial/finetune_accuracy", "trial/probe_accuracy"
FEW_SHOT, PACE = "trial/few_shot_accuracy", "trial/pretrain_images_per_second"
FLOPS = "trial/pretrain_flops_per_image"
"""What a row costs: shown as a multiple of the default row's, and not ranked."""
BOTH = (Column(FINETUNE, "ft"), Column(LINEAR, "lin"))
OVERLAY = "pretrain.config"
_1D, _2D = "ablations/vit_positions_1d", "ablations/vit_positions_2d"
_EVERY_LAYER = "ablations/vit_positions_every_layer"
LARGE = "ViT-L/16, 800 epochs, ImageNet-1k top-1"


def _row(label: str, value: Any, ft: float | None, lin: float | None, small: Any = None, default: bool = False) -> Row:
    paper = {name: figure for name, figure in ((FINETUNE, ft), (LINEAR, lin)) if figure is not None}
    return Row(label, value, paper, small, default)


STUDIES = {
    "table_1a": Study(
        "Decoder depth: blocks",
        f"MAE, Table 1a ({LARGE})",
        "pretrain.model.decoder.depth",
        (
            _row("1", 1, 84.8, 65.5),
            _row("2", 2, 84.9, 70.0),
            _row("4", 4, 84.9, 71.9),
            _row("8", 8, 84.9, 73.5, default=True),
            _row("12", 12, 84.4, 73.3),
        ),
        BOTH,
    ),
    "table_1b": Study(
        "Decoder width: channels",
        f"MAE, Table 1b ({LARGE})",
        "pretrain.model.decoder.dim",
        (
            _row("128", 128, 84.9, 69.1, small=16),
            _row("256", 256, 84.8, 71.3, small=32),
            _row("512", 512, 84.9, 73.5, small=64, default=True),
            _row("768", 768, 84.4, 73.1, small=96),
            _row("1024", 1024, 84.3, 73.1, small=128),
        ),
        BOTH,
        note="At the scale of the shipped data the widths are an eighth of the paper's, which stand as the labels.",
    ),
    "table_1c": Study(
        "Mask token in the encoder",
        f"MAE, Table 1c ({LARGE})",
        "pretrain.model.mask_token_in_encoder",
        (
            Row("encoder with [M]", True, {FINETUNE: 84.2, LINEAR: 59.6, FLOPS: 3.3}),
            Row("encoder without [M]", False, {FINETUNE: 84.9, LINEAR: 73.5, FLOPS: 1.0}, is_default=True),
        ),
        BOTH,
        note="BERT's replacement (bert) stands in no table of the paper.",
    ),
    "table_1d": Study(
        "Reconstruction target",
        f"MAE, Table 1d ({LARGE})",
        OVERLAY,
        (
            _row("pixel (without norm)", "ablations/target_pixels", 84.9, 73.5, default=True),
            _row("pixel (with norm)", "none", 85.4, 73.9),
            _row("PCA", "ablations/target_pca", 84.6, 72.3),
            _row("dVAE token", "ablations/target_tokens", 85.3, 71.6),
        ),
        BOTH,
    ),
    "table_1e": Study(
        "Data augmentation",
        f"MAE, Table 1e ({LARGE})",
        OVERLAY,
        (
            _row("none", "ablations/augmentation_none", 84.0, 65.7),
            _row("crop, fixed size", "ablations/augmentation_fixed_crop", 84.7, 73.1),
            _row("crop, random size", "none", 84.9, 73.5, default=True),
            _row("crop + color jitter", "ablations/augmentation_color_jitter", 84.3, 71.9),
        ),
        BOTH,
    ),
    "table_1f": Study(
        "Mask sampling",
        f"MAE, Table 1f ({LARGE})",
        OVERLAY,
        (
            _row("random 75 %", "none", 84.9, 73.5, default=True),
            _row("block 50 %", "ablations/mask_block+ablations/mask_ratio_50", 83.9, 72.3),
            _row("block 75 %", "ablations/mask_block", 82.8, 63.9),
            _row("grid 75 %", "ablations/mask_grid", 84.0, 66.0),
        ),
        BOTH,
        note="The shipped images are brought to 32 x 32 pixels, 8 x 8 patches: grid sampling needs even sides.",
    ),
    "figure_5": Study(
        "Mask ratio",
        f"MAE, Figure 5 ({LARGE}); linear probing's values as recalled, fine-tuning only at 75 %",
        "pretrain.model.mask_ratio",
        tuple(
            _row(f"{ratio:.0%}", ratio, 84.9 if ratio == 0.75 else None, linear, default=ratio == 0.75)
            for ratio, linear in (
                (0.1, 54.6),
                (0.2, 58.9),
                (0.3, 61.7),
                (0.4, 67.0),
                (0.5, 69.9),
                (0.6, 71.8),
                (0.7, 73.2),
                (0.75, 73.5),
                (0.8, 71.8),
                (0.9, 66.1),
            )
        ),
        BOTH,
        is_curve=True,
        note="The paper's fine-tuning is good from 40 to 80 %.",
    ),
    "figure_9": Study(
        "Partial fine-tuning: blocks that train",
        "MAE, Figure 9 (ViT-L/16, ImageNet-1k top-1)",
        "finetune.model.trainable_blocks",
        (
            _row("0.5", 0.5, 79.1, None),
            _row("1", 1, 81.0, None),
            _row("2", 2, None, None),
            _row("4", 4, None, None),
            _row("6", 6, None, None),
            _row("12", 12, None, None),
            _row("18", 18, None, None),
            _row("all", "all", 84.9, None, default=True),
        ),
        (Column(FINETUNE, "top-1"),),
        is_curve=True,
        note="The paper takes the best of 50, 100 and 200 epochs for each point, this sweep one length. Its 0 blocks"
        " are linear probing (73.5), another protocol, and are left out.",
    ),
    "table_2": Study(
        "Wall clock of pretraining",
        "MAE, Table 2 (ViT-L/16, 800 epochs, 128 TPU-v3 cores: 42.4, 15.4 and 11.6 hours)",
        OVERLAY,
        (
            Row("with [M]", "ablations/mask_token_in_encoder", {PACE: 1.0}, is_default=True),
            Row("without [M]", "none", {PACE: 2.8}),
            Row("without [M], decoder of 1 block", "ablations/decoder_depth_1", {PACE: 3.7}),
        ),
        (Column(PACE, "speed-up", percent=False, relative=True, digits=2),),
        note="Images a second of training alone, as a multiple of the first row's; start and validation do not count.",
    ),
    "vit_table_8": Study(
        "Position embedding of a ViT",
        "ViT, Table 8 (ViT-B/16, ImageNet 5-shot linear)",
        "finetune.config",
        tuple(
            Row(label, overlays, {FEW_SHOT: accuracy}, is_default=label == "1-D, stem")
            for label, overlays, accuracy in (
                ("none", "ablations/vit_positions_none", 61.382),
                ("1-D, stem", _1D, 64.206),
                ("1-D, every layer", f"{_1D}+{_EVERY_LAYER}", 63.964),
                ("1-D, every layer, shared", f"{_1D}+{_EVERY_LAYER}_shared", 64.292),
                ("2-D, stem", _2D, 64.001),
                ("2-D, every layer", f"{_2D}+{_EVERY_LAYER}", 64.046),
                ("2-D, every layer, shared", f"{_2D}+{_EVERY_LAYER}_shared", 64.022),
                ("relative", "ablations/vit_positions_relative", 64.032),
            )
        ),
        (Column(FEW_SHOT, "5-shot", digits=2),),
        note="The encoder is trained on some classes and judged on the others, which it never saw, by closed-form least"
        " squares from 5 images a class. The ten draws of these images are the same for every row and seed.",
    ),
    "vit_figure_9": Study(
        "Position embeddings of a ViT after different training",
        "ViT, Figure 9 (ViT-L/16; 7 and 14 epochs, lr 0.0002 and 0.0004, weight decay 0.01 and 0.1, as recalled)",
        "finetune.trainer.max_epochs",
        (),
        (Column(FINETUNE, "top-1"),),
        note="The paper's figure is the maps, not an accuracy: look for rows and columns, and how sharp they are.",
        combined={
            "finetune.trainer.max_epochs": "epochs",
            "finetune.model.base_lr": "base lr",
            "finetune.model.weight_decay": "decay",
        },
        shows_positions=True,
    ),
    "block_norm": Study(
        "LayerNorm or BatchNorm in a ViT's blocks, from scratch",
        "no table of the papers",
        "finetune.config",
        (
            Row("LayerNorm", "none", is_default=True),
            Row("BatchNorm", "ablations/vit_block_norm_batch"),
        ),
        (Column(FINETUNE, "top-1"),),
    ),
    "lr_search": Study(
        "Learning rate of fine-tuning, on a hold-out of the training set",
        "no table of the papers",
        "finetune.model.base_lr",
        (),
        (Column(FINETUNE, "hold-out"),),
        note="Take the best rate to a run without hold_out; these figures are not of the test set.",
    ),
}
"""By the name that a trial's ``--study`` gives after its scale: quickstart/table_1c."""

SMALL = "quickstart"


def find_study(name: str) -> tuple[Study, bool]:
    """The study of a trial's ``--study``, and whether it is at the scale of the shipped data.

    Raises:
        ValueError: There is none of that name.
    """
    scale, _, bare = name.rpartition("/")
    if bare not in STUDIES:
        raise ValueError(f"there is no study {bare!r}; there are {', '.join(STUDIES)}")
    return STUDIES[bare], scale == SMALL

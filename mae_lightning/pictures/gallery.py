"""All figures of one model: what each shows, and what to look for in it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from mae_lightning.models import PatchMask
from mae_lightning.pictures.attention import attention_distance, attention_maps
from mae_lightning.pictures.attention_drawing import draw_distance, draw_maps
from mae_lightning.pictures.features import component_colours, component_scores, patch_features
from mae_lightning.pictures.filters import NUM_COMPONENTS, draw_filters, principal_components
from mae_lightning.pictures.masks import KINDS, mask_kinds
from mae_lightning.pictures.positions import draw_encoding, draw_similarities, position_similarities, sincos_encoding
from mae_lightning.pictures.reconstructions import is_possible, ratio_series, reconstruct
from mae_lightning.pictures.sheet import as_rgb, sheet
from mae_lightning.pictures.style import NotDrawnError
from mae_lightning.pictures.subject import Subject

RATIOS = (0.75, 0.8, 0.85, 0.9, 0.95)
"""Of the paper's Figure 4."""


@dataclass(frozen=True)
class Drawing:
    """One kind of figure.

    Attributes:
        draw: Draws it, or raises NotDrawnError.
        caption: What to look for.
    """

    draw: Callable[[Subject], Figure]
    caption: str


def draw_reconstructions(subject: Subject) -> Figure:
    """Masked, reconstructed, with the visible patches, original (MAE, Figure 2)."""
    model, ratio = subject.masked, subject.mask_ratio
    if not is_possible(model.num_patches, ratio):
        raise NotDrawnError(f"{ratio:.0%} of {model.num_patches} patches leave nothing to see, or nothing to hide")
    mask = PatchMask.from_noise(subject.noise, ratio)
    drawn = reconstruct(model, subject.model.normalize, subject.images, mask, subject.statistics)
    title = subject.title(f"Reconstructions, mask ratio {ratio:.0%}")
    hidden = f"{mask.masked.shape[1]} of {model.num_patches} patches hidden at random, seed {subject.seed}"
    detail = f"{hidden}; pixels from {drawn.mode}"
    return sheet({name: images.cpu() for name, images in drawn.columns().items()}, title, detail)


def draw_ratios(subject: Subject) -> Figure:
    """The same model at five mask ratios, with each image's masked loss (MAE, Figure 4)."""
    model, normalize = subject.masked, subject.model.normalize
    series = ratio_series(model, normalize, subject.images, subject.noise, RATIOS, subject.statistics)
    if not series:
        raise NotDrawnError(f"{model.num_patches} patches are too few for {RATIOS[0]:.0%} to {RATIOS[-1]:.0%} masked")
    columns = {"original": subject.pixels}
    columns |= {f"{ratio:.0%} masked": drawn.pasted.cpu() for ratio, drawn in series.items()}
    blank = [""] * len(subject.images)
    notes = [blank, *([f"loss {loss:.3f}" for loss in drawn.loss.tolist()] for drawn in series.values())]
    mode = next(iter(series.values())).mode
    detail = f"below: masked loss of {type(model.target).__name__}; visible patches pasted in; pixels from {mode}"
    return sheet(columns, subject.title(f"Mask ratios {RATIOS[0]:.0%} to {RATIOS[-1]:.0%}"), detail, notes)


def draw_masks(subject: Subject) -> Figure:
    """Random, block and grid masks side by side (MAE, Figure 6)."""
    size, images = _mask_patch(subject), subject.pixels
    grid = [pixels // step for pixels, step in zip(images.shape[2:], size, strict=True)]
    rows, columns = (count // 2 * 2 for count in grid)
    if min(rows, columns) == 0:
        raise NotDrawnError(f"{grid[0]} x {grid[1]} patches have no grid mask, which needs 2 x 2 at least")
    if not all(is_possible(rows * columns, ratio) for _, _, ratio in KINDS):
        raise NotDrawnError(f"{rows} x {columns} patches are too few to hide 90 % of them")
    shown = images[:, :, : rows * size[0], : columns * size[1]]
    part = "" if [rows, columns] == grid else f" (cut from {grid[0]} x {grid[1]}, as grid masks need even sides)"
    detail = f"{rows} x {columns} patches of {size[0]} x {size[1]} pixels{part}; seed {subject.seed}"
    return sheet(mask_kinds(shown, size, subject.seed), subject.title("Kinds of masks"), detail)


def _mask_patch(subject: Subject) -> tuple[int, int]:
    """What is hidden as a whole: the masked model's, otherwise the encoder's patch."""
    if subject.model.masked is not None:
        return subject.model.masked.patch_size
    if not hasattr(subject.model.encoder, "patch_embed"):
        raise NotDrawnError(f"a {type(subject.model.encoder).__name__} has no patches")
    height, width = subject.model.encoder.patch_embed.patch_size
    return height, width


def draw_filter_components(subject: Subject) -> Figure:
    """Principal components of the patch-embedding filters (ViT, Figure 7, left)."""
    encoder = subject.model.encoder
    if not hasattr(encoder, "patch_embed"):
        raise NotDrawnError(f"a {type(encoder).__name__} has no patch embedding")
    weight = encoder.patch_embed.proj.weight
    colours = {1: "red above, blue below zero", 3: "grey is zero"}
    meaning = colours.get(weight.shape[1], "red above, blue below zero, channels side by side")
    filters = f"{len(weight)} filters of {weight.shape[2]} x {weight.shape[3]} pixels"
    detail = f"{filters}; share of variance below; {meaning}"
    title = f"Patch embedding, principal components: {subject.model.name}"
    return draw_filters(principal_components(weight, NUM_COMPONENTS), title, detail)


def draw_position_similarities(subject: Subject) -> Figure:
    """Cosine similarity of position embeddings (ViT, Figures 7 centre and 9)."""
    encoders = {subject.model.name: subject.model.encoder, **subject.beside}
    panels = {
        ", ".join(filter(None, (name if len(encoders) > 1 else "", place))): similarity
        for name, encoder in encoders.items()
        for place, similarity in position_similarities(encoder).items()
    }
    title = f"Similarity of position embeddings: {' and '.join(encoders)}"
    return draw_similarities(panels, title, "each map: one patch with all others, 1 is itself")


def draw_attention_distance(subject: Subject) -> Figure:
    """Mean attention distance of each head by depth (ViT, Figure 7, right)."""
    images = subject.many_images
    distance = attention_distance(subject.model.encoder, images)
    height, width = images.shape[2:]
    seen = f"{len(images)} images of {height} x {width} pixels, all patches seen"
    detail = f"{seen}; class token left out, weights renormalised"
    return draw_distance(distance, subject.title("Attention distance"), detail)


def draw_attention_maps(subject: Subject) -> Figure:
    """Where the class token looks: rollout, and the heads of the last block."""
    maps = attention_maps(subject.model.encoder, subject.images)
    title = subject.title(f"Attention of the {maps.query}")
    detail = "heads of the last block, and rollout through all blocks; each from 0 to its own maximum; all patches seen"
    return draw_maps(maps, subject.pixels, title, detail)


def draw_features(subject: Subject) -> Figure:
    """The first three principal components of patch tokens as red, green and blue."""
    features = patch_features(subject.model.encoder, subject.images)
    height, width = subject.images.shape[2:]
    colours = component_colours(component_scores(features), (height, width))
    detail = "red, green, blue: components of all patch tokens of these images together; all patches seen"
    pairs = zip(subject.pixels, colours, strict=True)
    columns = {
        f"image {number}": torch.stack([torch.from_numpy(as_rgb(image)).movedim(2, 0), shown])
        for number, (image, shown) in enumerate(pairs, start=1)
    }
    return sheet(columns, subject.title("Patch features, principal components"), detail)


def draw_sincos(subject: Subject) -> Figure:
    """The Transformer's encoding of as many positions as the model has patches, in its width."""
    encoder = subject.model.encoder
    embedding = getattr(encoder, "patch_embed", None)
    if embedding is None:
        raise NotDrawnError(f"a {type(encoder).__name__} has no patches")
    dim = embedding.proj.weight.shape[0]
    detail = f"{embedding.num_patches} positions of {dim} channels, the numbers of {subject.model.name}"
    return draw_encoding(sincos_encoding(embedding.num_patches, dim), "Sin-cos encoding of positions", detail)


FIGURES = {
    "reconstructions": Drawing(
        draw_reconstructions,
        "Look at the hidden patches alone: is the shape right, and does the texture go on? Blur is normal, as the mean"
        " of all that could be there has the least squared error.",
    ),
    "ratios": Drawing(
        draw_ratios,
        "From left to right fewer patches are seen. A good model stays plausible far beyond the ratio it was trained"
        " with, and errs by drawing another likely object rather than noise.",
    ),
    "masks": Drawing(
        draw_masks,
        "Grey is hidden. Random masks leave a hint everywhere, blocks take away whole parts, and the grid leaves each"
        " hidden patch a visible neighbour, which is too easy.",
    ),
    "filters": Drawing(
        draw_filter_components,
        "Smooth waves of growing frequency, as in a basis of small images, are what training gives; noise means too"
        " little of it.",
    ),
    "positions": Drawing(
        draw_position_similarities,
        "Each map is brightest at its own patch and falls off with distance; rows and columns show as a cross where"
        " both axes are encoded apart.",
    ),
    "attention_distance": Drawing(
        draw_attention_distance,
        "Heads far below the dashed line look near by, heads at it look everywhere. In trained models early blocks"
        " have both kinds and late blocks look far.",
    ),
    "attention": Drawing(
        draw_attention_maps,
        "Yellow is where it looks. Heads that differ from each other and follow the object are a good sign; in masked"
        " pretraining nothing trains the class token itself.",
    ),
    "features": Drawing(
        draw_features,
        "Equal colours mean alike features. Parts of the same kind should share a colour across images, and the"
        " background should be plain.",
    ),
    "sincos": Drawing(
        draw_sincos,
        "Each row is one position: left channels change with every step, right ones hardly at all, so that near"
        " positions have near codes.",
    ),
}
"""Figures by name, in the order of a page."""

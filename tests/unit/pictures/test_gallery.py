import matplotlib
import pytest
import torch
from PIL import Image

from mae_lightning.commands.figures import CAPTIONS, NAMES
from mae_lightning.models import (
    MaskedAutoencoder,
    Normalization,
    PatchMask,
    SimMIM,
    SwinSize,
    TransformerDecoder,
    ViTSize,
    sample_noise,
)
from mae_lightning.pictures.gallery import FIGURES
from mae_lightning.pictures.page import Section, page
from mae_lightning.pictures.reconstructions import ratio_series
from mae_lightning.pictures.style import NotDrawnError, new_figure, picture_bytes, write_figure
from mae_lightning.pictures.subject import Model, Subject
from mae_lightning.weights import CheckpointCard


def subject_of(model, **options):
    channels, (height, width) = model.num_channels, model.image_size
    normalize = Normalization([0.4] * channels, [0.2] * channels)
    card = CheckpointCard("mae", "x", None, None, model.image_size, channels, (0.4,) * channels, (0.2,) * channels, "0")
    images = normalize(torch.rand(3, channels, height, width))
    shown = Model("name", model.eval().encoder, model, "", normalize, card)
    return Subject(shown, "data", images, torch.arange(3), images, **options)


@pytest.fixture
def subject():
    decoder = TransformerDecoder(depth=1, dim=8, num_heads=2)
    model = MaskedAutoencoder(ViTSize(8, 2, 2, (8, 4)), decoder, image_size=(32, 20), num_channels=5)
    return subject_of(model)


def test_every_figure_is_drawn_for_any_channels_and_rectangles(subject, tmp_path):
    before = dict(matplotlib.rcParams)
    for name, drawing in FIGURES.items():
        paths = write_figure(drawing.draw(subject), tmp_path, name)
        assert [path.suffix for path in paths] == [".png", ".svg"]
        with Image.open(paths[0]) as picture:
            assert min(picture.size) > 150
        assert "</svg>" in paths[1].read_text()
    assert dict(matplotlib.rcParams) == before


def test_a_swin_draws_what_it_can():
    model = SimMIM(SwinSize(dim=8, depths=(2, 2), num_heads=2, patch_size=2), image_size=(16, 16), num_channels=1)
    subject, refused = subject_of(model, mask_ratio=0.6), {}
    for name, drawing in FIGURES.items():
        try:
            drawing.draw(subject)
        except NotDrawnError as reason:
            refused[name] = str(reason)
    assert set(refused) == {"positions", "attention"}
    assert "no embedding of absolute positions" in refused["positions"]


@pytest.mark.parametrize(("grid", "refused"), [((1, 2), {"reconstructions", "ratios", "masks"}), ((2, 2), {"masks"})])
def test_grids_that_are_too_small_for_a_figure_draw_the_others(grid, refused):
    decoder = TransformerDecoder(depth=1, dim=8, num_heads=2)
    size = (grid[0] * 8, grid[1] * 8)
    subject = subject_of(MaskedAutoencoder(ViTSize(8, 2, 2, 8), decoder, image_size=size, num_channels=1))
    reasons = {}
    for name, drawing in FIGURES.items():
        try:
            drawing.draw(subject)
        except NotDrawnError as reason:
            reasons[name] = str(reason)
    assert set(reasons) == refused
    assert "too few to hide 90 % of them" in reasons["masks"] or grid == (1, 2)


def test_without_pixels_nothing_is_reconstructed(subject, monkeypatch):
    monkeypatch.setattr(type(subject.model.masked.target), "pixel_modes", {})
    for name in ("reconstructions", "ratios"):
        with pytest.raises(NotDrawnError, match="no way back to pixels"):
            FIGURES[name].draw(subject)


def test_the_command_and_the_gallery_have_the_same_names():
    assert set(NAMES) == {*FIGURES, *CAPTIONS}


def test_losses_of_the_ratios_are_those_of_training(subject):
    model, noise = subject.masked, sample_noise(torch.arange(3), 20, 0, 0)
    series = ratio_series(model, subject.model.normalize, subject.images, noise, (0.5, 0.8, 0.95, 0.99))
    assert list(series) == [0.5, 0.8, 0.95]
    for ratio, drawn in series.items():
        expected = model(subject.images, PatchMask.from_noise(noise, ratio)).loss_per_patch.mean(dim=1)
        torch.testing.assert_close(drawn.loss, expected)


def test_equal_figures_are_equal_files(tmp_path):
    files = []
    for folder in ("first", "second"):
        figure = new_figure(2.0, 1.0, "A title that is too long for one line of two inches", "a detail")
        figure.subplots().plot([1, 2])
        files.append([path.read_bytes() for path in write_figure(figure, tmp_path / folder, "figure")])
    assert files[0] == files[1]
    assert picture_bytes(figure).startswith(b"\x89PNG")


def test_the_page_has_all_frames_and_the_reasons():
    frames = {"50% masked": b"first", "75% masked": b"second"}
    sections = [Section("some_figure", "look & see", frames, 1), Section("other", "caption", {"figure": b"third"})]
    text = page("<title>", sections, {"absent": "no decoder"})
    assert text.count("data:image/png;base64,") == 3
    assert text.count(" hidden>") == 1
    assert text.count('type="range"') == 1
    assert 'max="1" step="1" value="1"' in text
    assert all(part in text for part in ("&lt;title&gt;", "look &amp; see", "<b>Absent</b>: no decoder", "Some figure"))
    assert "<output>75% masked</output>" in text

"""Other data than the quickstart's: arrays of five channels, and a flat folder of photographs without labels."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

VAL = "data.init_args.val"


def write_arrays(path: Path, count: int) -> Path:
    """A shard of arrays, 64 high, 96 wide, of five channels."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for index in range(count):
            content = io.BytesIO()
            np.save(content, random.integers(0, 2**16, (64, 96, 5), dtype=np.uint16))
            member = tarfile.TarInfo(f"{index:03d}.npy")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)
    return path


def write_photographs(folder: Path, count: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        pixels = random.integers(0, 256, (40 + index, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{index}.jpg")
    return folder


@pytest.mark.parametrize("kind", ["arrays", "photographs"])
def test_trains_and_draws(cli: Callable, here: Path, small: tuple[str, ...], kind: str) -> None:
    if kind == "arrays":
        data = write_arrays(here / "arrays.tar", 16)
        shape = ["--data.init_args.image_size=[64,96]", "--model.init_args.encoder=nano/8x4"]
    else:
        data = write_photographs(here / "photos", 16)
        shape = ["--data.init_args.image_size=32", "--model.init_args.encoder=nano/8"]
    outcome = cli(
        "fit", *small, f"--data.init_args.train={data}", f"--data.init_args.val={data}", *shape, "--run.name=it"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "k-NN probe: off" in outcome.out
    (picture,) = Path("runs/it/pictures").glob("*.png")
    with Image.open(picture) as drawn:
        assert len(drawn.convert("RGB").getcolors(2**20)) > 100
    expected = "5 x 64 x 96" if kind == "arrays" else "3 x 32 x 32"
    assert expected in outcome.out


FIGURES = (
    "--trainer.callbacks+=mae_lightning.callbacks.FigurePictures",
    "--trainer.callbacks.init_args.which=[features]",
)


def test_a_part_of_the_data_is_drawn_too(cli: Callable, here: Path, small: tuple[str, ...]) -> None:
    """Its samples keep their places in the whole, so that these have gaps."""
    outcome = cli("fit", *small, "--data.init_args.hold_out=0.5", *FIGURES, "--run.name=it")
    assert outcome.code == 0, outcome.err
    drawn = {path.name.partition("-")[0] for path in Path("runs/it/pictures").glob("*.png")}
    assert drawn == {"reconstructions", "features"}


def test_a_bad_image_that_may_pass_stands_in_no_picture(
    cli: Callable, here: Path, small: tuple[str, ...], shard: Path
) -> None:
    content = bytearray(shard.read_bytes())
    content[512:540] = bytes(28)  # of the first image
    (here / "held-out.tar").write_bytes(content)
    data = ("--data.init_args.val=held-out.tar", "--data.init_args.max_bad_samples=1")
    outcome = cli("fit", *small, *data, "--run.name=it")
    assert outcome.code == 0, outcome.err
    (picture,) = Path("runs/it/pictures").glob("*.png")
    assert picture.name.startswith("reconstructions-")

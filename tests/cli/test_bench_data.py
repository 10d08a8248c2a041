"""`bench data`: what it measures, and that each figure moves when its stage does."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from image_making import class_images, picture, write_files

from mae_lightning.cli.bench_data import _copied
from mae_lightning.data import ShardDataModule
from mae_lightning.data import benchmark as bench
from mae_lightning.data.benchmark import STAGES, Cost, Official, Ours, measure, pixel_difference, write_image_folder
from mae_lightning.data.samples import SampleMaker

STEP, IMAGES = 0.003, 8


@pytest.fixture
def photos(here: Path) -> str:
    """Sixteen photographs, by their size."""
    files = {f"{'ab'[number % 2]}/{number}.jpg": picture(number, "JPEG", (90, 120)) for number in range(16)}
    write_files(here / "photos", files)
    return "photos"


def test_the_table(cli: Callable, photos: str) -> None:
    options = ["--image-size=32", "--images=12", "--rounds=7", "--images-per-second=2000", "--out=figures.json"]
    outcome = cli("bench", "data", "--data", photos, "--compare", *options)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("photos: 12 images to 32 x 32 by RandomResizedCropFlip; medians of 7 rounds")
    figures = json.loads(Path("figures.json").read_text())
    costs = figures["costs"]
    whole = costs["whole"]["median"]
    assert [line.split()[0] for line in lines[2:7]] == [*STAGES, "whole"]
    assert lines[6].endswith(f"{1000 / whole:,.0f} images/s on one core")
    assert f"cores to feed the model's 2,000 images/s: {2 * whole:.1f}" in lines
    assert lines[-1].startswith(f"ratio: {costs['ratio']['median']:.2f} (")
    assert 0 < figures["difference"] < 1
    assert all(cost["low"] <= cost["median"] <= cost["high"] for cost in costs.values())
    assert not list(Path().glob("mae-lightning-bench*"))


def test_the_data_of_a_config(cli: Callable, photos: str) -> None:
    outcome = cli("bench", "data", "--config=quickstart/pretrain", "--images=8", "--rounds=7")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("fashion_mnist: 8 images to 28 x 28 by RandomResizedCropFlip")
    outcome = cli("bench", "data", "--config=imagenet/pretrain_base", "--data", photos, "--images=8", "--rounds=7")
    assert outcome.out.startswith("photos: 8 images to 224 x 224 by RandomResizedCropFlip")


def busy(call: Callable, seconds: float) -> Callable:
    """The same with some work before it."""

    def slower(*arguments: object, **named: object) -> object:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return call(*arguments, **named)

    return slower


@pytest.mark.parametrize(
    ("stage", "owner", "name"),
    [
        ("read", bench.Files, "read"),
        ("decode", SampleMaker, "decode"),
        ("crop", SampleMaker, "crop"),
        ("webdataset", bench, "stream_bytes"),
        ("plan", bench.MicroBatches, "order"),
    ],
)
def test_slower_stages_are_seen_where_they_are(
    photos: str, monkeypatch: pytest.MonkeyPatch, stage: str, owner: object, name: str
) -> None:
    data = ShardDataModule(photos, image_size=16, num_workers=0)
    ours = Ours(_copied(data, IMAGES, Path("copy")), data.evaluate)
    before = measure(ours, None, 7)
    once_an_epoch = stage in ("webdataset", "plan")
    monkeypatch.setattr(owner, name, busy(getattr(owner, name), STEP * (IMAGES if once_an_epoch else 1)))
    after = measure(ours, None, 7)
    per_image = 1000 * STEP
    for each in (*STAGES, "plan", "webdataset"):
        added = after[each].median - before[each].median
        assert added == pytest.approx(per_image if each == stage else 0, abs=0.35 * per_image), each
    in_whole = stage != "webdataset"
    assert (after["whole"].median - before["whole"].median > 0.6 * per_image) == in_whole


def test_the_official_pipeline_and_ours_see_the_same_crops(photos: str) -> None:
    data = ShardDataModule(photos, image_size=16, num_workers=0)
    manifest = _copied(data, 16, Path("copy"))
    make = replace(data.evaluate, augmentation=data.augmentation)
    write_image_folder(manifest, Path("folder"))
    assert len(list(Path("folder").rglob("*.jpg"))) == 16
    assert Official(Path("folder"), make, data.mean, data.std).whole() > 0
    assert pixel_difference(manifest, replace(make, decoder="reference")) == 0
    assert 0 < pixel_difference(manifest, make) < 1


@pytest.mark.parametrize(
    ("rounds", "low", "high"), [(6, 0, 5), (7, 0, 6), (8, 0, 7), (9, 1, 7), (12, 2, 9), (20, 5, 14)]
)
def test_intervals_are_the_order_statistics_of_the_sign_test(rounds: int, low: int, high: int) -> None:
    """The well-known ranks of the distribution-free interval of the median, here from 0."""
    cost = Cost.of([float(number) for number in reversed(range(rounds))])
    assert (cost.low, cost.high) == (low, high)
    assert cost.median == (rounds - 1) / 2


MISTAKES = {
    "data": "nothing to measure: give --config RECIPE or --data SOURCE",
    "model": "bench: argument {data,step}: invalid choice: 'model'",
    "data --data photos --rounds 6": "--rounds 6: an interval of 95 % takes at least 7",
    "data --data photos --images 0": "--images 0 must be above 0",
    "data --data photos --images -3": "--images -3 must be above 0",
    "data --data photos --image-size 0": "image_size 0 and those by epoch must be at least 1 pixel",
    "data --config no/such": "config 'no/such' is neither a file nor a shipped config",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_one_line(cli: Callable, photos: str, command: str) -> None:
    outcome = cli("bench", *command.split())
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {MISTAKES[command]}")
    assert outcome.err.count("\n") == 1


def test_what_the_official_pipeline_cannot_do_is_refused(cli: Callable, here: Path) -> None:
    (here / "other.yaml").write_text("data: {init_args: {augmentation: mae_lightning.data.NoAugmentation}}\n")
    options = ("--rounds=7", "--images=4", "--compare")
    outcome = cli("bench", "data", "--config=quickstart/pretrain", "--config=other.yaml", *options)
    assert outcome.err == "error: the official pipeline has RandomResizedCropFlip, not NoAugmentation\n"
    write_files(here / "gifs", {name.replace("png", "gif"): picture(1, "GIF") for name in class_images(4)})
    outcome = cli("bench", "data", "--data=gifs", "--image-size=8", *options)
    assert outcome.err.endswith("the official pipeline reads no gif\n")

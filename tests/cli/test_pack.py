"""`pack` and `unpack`: the bytes there and back, the order, the interruption, and what is refused."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_making import class_images, digests, members, picture, tree, write_files, write_tar
from PIL import Image

import mae_lightning
from mae_lightning.data import ShardDataModule
from mae_lightning.data.contents import Contents
from mae_lightning.data.origins import find_contents
from mae_lightning.data.packing import Packing, pack
from mae_lightning.data.reading import read_rows
from mae_lightning.data.sources import open_source


def test_class_folders_become_shards_that_the_data_grammar_reads(cli: Callable, here: Path) -> None:
    files = class_images(12)
    write_files(here / "photos", files)
    outcome = cli("pack", "photos", "--out", "shards", "--shard-samples", "5")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("train: 12 images in 3 shards, 0.0 MB\nshards/manifest.json: mean (")
    source = open_source("shards", "train")
    assert source.class_names == ("cat", "dog")
    labels = dict(zip(source.manifest.keys, source.manifest.label.tolist(), strict=True))
    assert labels == {f"{('cat', 'dog')[index % 2]}/{index:02d}": index % 2 for index in range(12)}
    stored = {}
    for path in sorted(Path("shards").glob("*.tar")):
        stored |= members(path)
    assert {name: data for name, data in stored.items() if name.endswith("png")} == files
    names = sorted(path.name for path in Path("shards").iterdir() if path.suffix != ".npz")
    assert names == ["manifest.json", "train-00000.tar", "train-00001.tar", "train-00002.tar"]


def test_the_manifest_says_what_there_is(cli: Callable, here: Path) -> None:
    files = {"a/1.png": picture(1), "b/2.png": picture(2, size=(30, 7)), "b/3.png": picture(3, mode="L")}
    write_files(here / "photos", files)
    cli("pack", "photos", "--out", "shards")
    manifest = json.loads(Path("shards/manifest.json").read_text())
    assert manifest["image_sizes"] == {"height": [10, 30], "width": [7, 12]}
    assert manifest["class_names"] == ["a", "b"]
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) / 255 for data in files.values()]
    mean = np.mean([image.mean((0, 1)) for image in pixels], 0)
    deviation = np.sqrt(np.mean([np.square(image).mean((0, 1)) for image in pixels], 0) - mean**2)
    assert manifest["num_channels"] == 3
    np.testing.assert_allclose(manifest["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(manifest["std"], deviation, atol=1e-6)
    (shard,) = manifest["splits"]["train"]["shards"]
    assert shard["sha256"] == digests(Path("shards"))["train-00000.tar"]
    assert (shard["samples"], shard["bytes"]) == (3, Path("shards/train-00000.tar").stat().st_size)
    data = ShardDataModule("shards", image_size=8, num_workers=0)
    assert (data.mean, data.std) == (tuple(manifest["mean"]), tuple(manifest["std"]))


def test_there_and_back(cli: Callable, here: Path) -> None:
    files = class_images(9, ("cat", "dog", "T-shirt%2Ftop"))
    write_files(here / "photos", files | {"classes.txt": b"dog\nT-shirt/top\ncat\n"})
    assert cli("pack", "photos", "--out", "shards", "--shard-samples", "4").code == 0
    assert open_source("shards", "train").class_names == ("dog", "T-shirt/top", "cat")
    outcome = cli("unpack", "shards", "--out", "back")
    assert outcome.code == 0, outcome.err
    assert tree(here / "back/train") == files | {"classes.txt": b"dog\nT-shirt/top\ncat\n"}
    before, after = open_source("photos", "train"), open_source("back/train", "train")
    assert before.manifest.digest == after.manifest.digest
    assert before.class_names == after.class_names


@pytest.mark.parametrize(
    ("labels", "names", "folders"),
    [
        (range(12), None, {str(label) for label in range(12)}),
        ([1], ["dog", "cat"], {"cat"}),
        ([0, 1, 2], ["crane", "dog", "crane"], {"crane (0)", "dog", "crane (2)"}),
        ([0, 1], ["100%", "a/b"], {"100%25", "a%2Fb"}),
    ],
)
@pytest.mark.parametrize("key", ["deep/{}", "100%25/{}"])
def test_labels_there_and_back(
    cli: Callable, here: Path, labels: list[int], names: list[str] | None, folders: set[str], key: str
) -> None:
    keys = {key.format(label): label for label in labels}
    content = {f"{key}.png": picture(label) for key, label in keys.items()}
    content |= {f"{key}.cls": str(label).encode() for key, label in keys.items()}
    write_tar(here / "old.tar", dict(sorted(content.items())))
    if names:
        write_files(here, {"classes.txt": "".join(f"{name}\n" for name in names).encode()})
    assert cli("unpack", "old.tar", "--out", "back").code == 0
    assert {path.name for path in (here / "back").iterdir()} == folders | {"classes.txt"}
    for back in ("back", "shards"):
        source = open_source(back, "train")
        rows = read_rows(source.manifest, np.arange(len(keys)))
        by_image = {data: int(source.manifest.label[row]) for row, data in rows}
        assert by_image == {picture(label): label for label in labels}
        assert cli("pack", "back", "--out", "shards").code == 0


def test_classes_that_no_name_tells_apart_are_not_unpacked(cli: Callable, here: Path) -> None:
    write_tar(here / "old.tar", {"a.png": picture(1), "a.cls": b"0"})
    write_files(here, {"classes.txt": b"crane\ncrane (0)\ncrane\n"})
    outcome = cli("unpack", "old.tar", "--out", "back")
    assert outcome.err == "error: 2 classes of old.tar would be written to crane (0): give them other names\n"


def test_a_class_folder_of_any_name_there_and_back(cli: Callable, here: Path) -> None:
    write_files(here / "photos", {"100%/1.png": picture(1), "50%/2.png": picture(2)})
    assert cli("pack", "photos", "--out", "shards").code == 0
    assert cli("unpack", "shards", "--out", "back").code == 0
    source = open_source("back/train", "train")
    assert source.class_names == open_source("shards", "train").class_names == ("100%", "50%")
    assert list(source.manifest.keys) == ["100%25/1", "50%25/2"]
    assert source.manifest.label.tolist() == [0, 1]


def test_odd_names_there_and_back(cli: Callable, here: Path) -> None:
    files = {
        "a.b.c.png": picture(1),
        "same.png": picture(2),
        "same.jpg": picture(3, "JPEG"),
        "deep/er/100%.png": picture(4),
        "__meta__/x.webp": picture(5, "WEBP"),
        "%2E.png": picture(6),
        "é" * 60 + ".png": picture(7),
    }
    write_files(here / "odd", files)
    assert cli("pack", "odd", "--out", "shards").code == 0
    assert len(open_source("shards", "train").manifest) == len(files)
    assert not open_source("shards", "train").manifest.is_labelled
    assert cli("unpack", "shards", "--out", "back").code == 0
    assert tree(here / "back/train") == files


def test_a_validation_split_is_taken_of_each_class(cli: Callable, here: Path) -> None:
    files = write_files(here / "photos", class_images(24, tuple("abcdef")))
    assert cli("pack", "photos", "--out", "shards", "--val-fraction", "0.25", "--seed", "3").code == 0
    train, val = open_source("shards", "train").manifest, open_source("shards", "val").manifest
    assert np.bincount(val.label).tolist() == [1] * 6
    assert sorted([*train.keys, *val.keys]) == sorted(name.removesuffix(".png") for name in tree(files))
    data = ShardDataModule("shards", image_size=8, num_workers=0)
    assert len(data.sources["val"].manifest) == 6


def test_a_validation_split_of_images_without_labels(cli: Callable, here: Path) -> None:
    write_files(here / "photos", {f"{number}.png": picture(number) for number in range(10)})
    assert cli("pack", "photos", "--out", "shards", "--val-fraction", "0.25").code == 0
    assert [len(open_source("shards", split).manifest) for split in ("train", "val")] == [7, 3]


def test_splits_of_the_source_stay(cli: Callable, here: Path) -> None:
    write_files(here / "photos", {f"train/{name}": data for name, data in class_images(6).items()})
    write_files(here / "photos", {f"val/{name}": data for name, data in class_images(4).items()})
    assert cli("pack", "photos", "--out", "shards").code == 0
    assert [len(open_source("shards", split).manifest) for split in ("train", "val")] == [6, 4]
    assert cli("pack", "photos:val", "--out", "held").code == 0
    assert len(open_source("held", "val").manifest) == 4
    assert cli("unpack", "shards", "--out", "back").code == 0
    assert {name for name in tree(here / "back") if name.endswith("png")} == set(tree(here / "photos"))


def test_the_order_is_the_seeds(cli: Callable, here: Path) -> None:
    write_files(here / "photos", class_images(12))
    for name, options in {"a": [], "b": [], "c": ["--seed=1"], "d": ["--no-shuffle"]}.items():
        assert cli("pack", "photos", "--out", name, *options).code == 0
    keys = {name: list(open_source(name, "train").manifest.keys) for name in "abcd"}
    assert digests(here / "a") == digests(here / "b")
    assert keys["d"] == sorted(keys["d"])
    assert len({tuple(each) for each in keys.values()}) == 3


def test_threads_change_nothing(cli: Callable, here: Path) -> None:
    write_files(here / "photos", class_images(16))
    for workers in ("1", "3"):
        cli("pack", "photos", "--out", workers, "--shard-samples=3", f"--workers={workers}")
    assert digests(here / "1") == digests(here / "3")


class _InterruptionError(Exception):
    pass


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("after", [0, 1, 5, 11, 17])
def test_interrupted_and_started_again(here: Path, after: int, workers: int) -> None:
    contents = find_contents(str(write_files(here / "photos", class_images(18))))
    options = Packing(shard_samples=3, workers=workers)
    pack(contents, here / "whole", options)
    count = 0

    def interrupt(images: int) -> None:
        nonlocal count
        count += images
        if count > after:
            raise _InterruptionError

    with pytest.raises(_InterruptionError):
        pack(contents, here / "cut", options, done=interrupt)
    assert not (here / "cut/manifest.json").exists()
    read = _counting(contents)
    pack(read[0], here / "cut", options)
    assert digests(here / "cut") == digests(here / "whole")
    if workers == 1:
        assert len(read[1]) == 18 - after // 3 * 3  # finished shards are not read again


def _counting(contents: dict[str, Contents]) -> tuple[dict[str, Contents], list[int]]:
    """The same, and the rows that were read."""
    (whole,) = contents.values()
    rows: list[int] = []

    def read(asked: np.ndarray) -> object:
        for row in asked:
            rows.append(int(row))
            yield from whole.read(np.array([row]))

    return {"train": replace(whole, read=read)}, rows


KILLED = """
import os, sys
from pathlib import Path
from mae_lightning.data.origins import find_contents
from mae_lightning.data.packing import Packing, pack
count = 0
def done(images):
    global count
    count += images
    if count == 8:
        os.kill(os.getpid(), 9)
pack(find_contents("photos"), Path("cut"), Packing(shard_samples=3), {"val_fraction": None}, done)
"""


def test_killed_and_started_again(cli: Callable, here: Path) -> None:
    write_files(here / "photos", class_images(16))
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, env=_environment())
    assert killed.returncode == -9, killed.stderr
    assert list((here / "cut/.packing").glob("*.tar"))
    for folder in ("cut", "whole"):
        outcome = cli("pack", "photos", "--out", folder, "--shard-samples=3")
        assert outcome.code == 0, outcome.err
    assert digests(here / "cut") == digests(here / "whole")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(mae_lightning.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def test_a_finished_folder_is_left_alone(cli: Callable, here: Path) -> None:
    write_files(here / "photos", class_images(6))
    cli("pack", "photos", "--out", "shards")
    before = {path: path.stat().st_mtime_ns for path in (here / "shards").iterdir()}
    assert cli("pack", "photos", "--out", "shards").code == 0
    assert {path: path.stat().st_mtime_ns for path in (here / "shards").iterdir()} == before
    shard = here / "shards/train-00000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    outcome = cli("pack", "photos", "--out", "shards")
    assert outcome.code == 2
    assert outcome.err.startswith("error: shards/train-00000.tar: ")
    shard.unlink()
    outcome = cli("pack", "photos", "--out", "shards")
    assert (outcome.code, outcome.err) == (2, "error: no shard at shards/train-00000.tar\n")
    shard.write_bytes(content)
    outcome = cli("pack", "photos", "--out", "shards", "--seed=1")
    assert outcome.code == 2
    expected = "shards already holds other shards (seed differs); name a new folder, or remove that one"
    assert outcome.err == f"error: {expected}\n"
    (here / "photos/cat/00.png").write_bytes(picture(99, size=(20, 20)))
    assert "already holds other shards (source differs)" in cli("pack", "photos", "--out", "shards").err


def test_reencoding_changes_the_data_and_says_so(cli: Callable, here: Path) -> None:
    small = picture(2, size=(10, 14))
    write_files(here / "photos", {"a/large.png": picture(1, size=(40, 60)), "b/small.png": small})
    outcome = cli("pack", "photos", "--out", "shards", "--shorter-side", "20", "--quality=90")
    assert outcome.out.startswith(
        "this changes the data: images with a shorter side above 20 pixels are resized to it and re-encoded as JPEG"
        " of quality 90\n"
    )
    stored = members(here / "shards/train-00000.tar")
    assert stored["b/small.png"] == small
    with Image.open(io.BytesIO(stored["a/large.jpg"])) as image:
        assert (image.format, image.size) == ("JPEG", (30, 20))
    assert json.loads((here / "shards/manifest.json").read_text())["recipe"]["shorter_side"] == 20


def test_bad_images_are_named(cli: Callable, here: Path) -> None:
    """R5, 12 and 13, where shards are made: a cut JPEG and an empty one."""
    whole = picture(1, "JPEG", size=(40, 40))
    files = class_images(6) | {"cat/cut.jpg": whole[: len(whole) // 2], "dog/empty.jpg": b""}
    write_files(here / "photos", files)
    outcome = cli("pack", "photos", "--out", "shards", "--no-shuffle")
    assert outcome.code == 2
    assert outcome.err.startswith("error: photos/cat/cut.jpg: ")
    assert "(2 bad images so far, and max_bad_samples is 0)" in outcome.err
    outcome = cli("pack", "photos", "--out", "shards", "--no-shuffle", "--max-bad-samples=2")
    assert outcome.code == 0, outcome.err
    left_out = [line for line in outcome.out.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[1] for line in left_out] == ["photos/cat/cut.jpg", "photos/dog/empty.jpg"]
    assert len(open_source("shards", "train").manifest) == 6
    assert json.loads((here / "shards/manifest.json").read_text())["left_out"] == 2


def test_a_link_to_nowhere_is_a_bad_image(cli: Callable, here: Path) -> None:
    write_files(here / "photos", class_images(4))
    (here / "photos/cat/gone.png").symlink_to("nowhere.png")
    outcome = cli("pack", "photos", "--out", "shards")
    assert outcome.code == 2
    assert outcome.err.startswith("error: photos/cat/gone.png: ")
    assert outcome.err.count("\n") == 1
    assert cli("pack", "photos", "--out", "shards", "--max-bad-samples=1").code == 0
    assert len(open_source("shards", "train").manifest) == 4


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_other_shards_are_packed_anew(cli: Callable, here: Path, suffix: str) -> None:
    for shard in range(2):  # the same keys in both
        samples = {f"{index}.png": picture(10 * shard + index) for index in range(4)}
        labels = {f"{index}.cls": str(shard).encode() for index in range(4)}
        write_tar(here / f"old-{shard}{suffix}", dict(sorted((samples | labels).items())))
    assert cli("pack", f"old-{{0..1}}{suffix}", "--out", "shards").code == 0
    stored = members(here / "shards/train-00000.tar")
    for shard in range(2):
        for index in range(4):
            assert stored[f"old-{shard}/{index}.png"] == picture(10 * shard + index)
            assert stored[f"old-{shard}/{index}.cls"] == str(shard).encode()
    assert cli("unpack", f"old-{{0..1}}{suffix}", "--out", "back").code == 0
    assert len(tree(here / "back")) == 9
    assert (here / "back/classes.txt").read_text() == "0\n1\n"


def test_equal_keys_of_shards_with_dots_in_their_names_are_told_apart(cli: Callable, here: Path) -> None:
    for shard in ("old.000.tar", "old.001.tar"):
        write_tar(here / shard, {"a.png": picture(1)})
    assert cli("pack", "old.00*.tar", "--out", "shards").code == 0
    assert set(members(here / "shards/train-00000.tar")) == {"old.000/a.png", "old.001/a.png"}


def test_unpacking_writes_nothing_outside(cli: Callable, here: Path) -> None:
    write_tar(here / "a.tar", {"../../escape.png": picture(1)})
    assert cli("unpack", "a.tar", "--out", "a.tar").err == "error: --out a.tar: a.tar is a file, not a folder\n"
    outcome = cli("unpack", "a.tar", "--out", "in/side")
    assert outcome.code == 2
    assert outcome.err == "error: sample '../../escape' would be written outside of the folder\n"
    assert not list(here.rglob("escape*"))


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_torchvision_arrays_become_png(cli: Callable, here: Path) -> None:
    raw = here / "downloads/MNIST/raw"
    raw.mkdir(parents=True)
    random, images = np.random.default_rng(0), {}
    for name, count in (("train", 6), ("t10k", 3)):
        images[name] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for suffix, array in (("images-idx3", images[name]), ("labels-idx1", np.arange(count, dtype=np.uint8))):
            (raw / f"{name}-{suffix}-ubyte").write_bytes(idx(array))
            (raw / f"{name}-{suffix}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    outcome = cli("pack", "torchvision:MNIST:downloads", "--out", "shards", "--no-shuffle")
    assert outcome.code == 0, outcome.err
    for split, name in (("train", "train"), ("val", "t10k")):
        source = open_source("shards", split)
        assert source.manifest.label.tolist() == list(range(len(images[name])))
        stored = [data for key, data in members(here / f"shards/{split}-00000.tar").items() if key.endswith("png")]
        for data, pixels in zip(stored, images[name], strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    assert source.class_names[0] == "0 - zero"


def test_torchvision_files_keep_their_bytes(cli: Callable, here: Path) -> None:
    names = ["apple_pie/1", "waffles/2"]
    files = {f"food-101/images/{name}.jpg": picture(index, "JPEG") for index, name in enumerate(names)}
    meta = json.dumps({name.split("/")[0]: [name] for name in names}).encode()
    write_files(here / "downloads", files | {f"food-101/meta/{split}.json": meta for split in ("train", "test")})
    outcome = cli("pack", "torchvision:Food101:downloads", "--out", "shards", "--no-shuffle")
    assert outcome.code == 0, outcome.err
    stored = members(here / "shards/val-00000.tar")
    assert [data for name, data in stored.items() if name.endswith("jpg")] == list(files.values())
    assert open_source("shards", "val").class_names == ("apple_pie", "waffles")


MISTAKES = {
    "torchvision:CIFAR10": "'torchvision:CIFAR10' should be torchvision:CLASS:FOLDER, such as",
    "torchvision:CIFAR:photos": "torchvision has no data set 'CIFAR' on disk; CIFAR10?",
    "torchvision:CIFAR10:nowhere": "no folder nowhere to read torchvision's CIFAR10 from",
    "torchvision:CIFAR10:photos": "torchvision cannot read CIFAR10 from photos: Dataset not found or corrupted",
    "torchvision:FakeData:photos": "torchvision has no data set 'FakeData' on disk",
    "nowhere/at/all": "no data at 'nowhere/at/all': there is no such file or folder",
    "photos --val-fraction=2": "--val-fraction 2 must be between 0 and 1",
    "photos --val-fraction=0": "--val-fraction 0 must be between 0 and 1",
    "split --val-fraction=0.5": "--val-fraction 0.5: the source has the splits train, val already",
    "photos --shard-samples=0": "--shard-samples 0 must be above 0",
    "photos --quality=101": "--quality 101 must be from 1 to 100",
    "photos --workers=0": "--workers 0 must be above 0",
    "photos --out=full/mine.txt": "--out full/mine.txt: full/mine.txt is a file, not a folder",
    "photos --out=full/mine.txt/deep": "--out full/mine.txt/deep: full/mine.txt is a file, not a folder",
    "photos --out=full": "full is not empty; name a new folder",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_one_line(cli: Callable, here: Path, command: str) -> None:
    write_files(here / "photos", class_images(4))
    for split in ("train", "val"):
        write_files(here / "split" / split, class_images(4))
    write_files(here / "full", {"mine.txt": b"keep"})
    outcome = cli("pack", "--out", "shards", *command.split())
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {MISTAKES[command]}")
    assert outcome.err.count("\n") == 1
    assert tree(here / "full") == {"mine.txt": b"keep"}


def test_samples_that_only_stream_keep_their_order(cli: Callable, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mae_lightning.data.reading.UNPACK_LIMIT", 100)
    samples = {f"{index}.png": picture(index) for index in range(5)}
    write_tar(here / "old.tar.gz", samples)
    outcome = cli("pack", "old.tar.gz", "--out", "shards")
    assert outcome.err == "error: the samples of 'train' can only be read in their order; add --no-shuffle\n"
    assert cli("pack", "old.tar.gz", "--out", "shards", "--no-shuffle", "--shard-samples=2").code == 0
    assert {name: data for shard in Path("shards").glob("*.tar") for name, data in members(shard).items()} == samples

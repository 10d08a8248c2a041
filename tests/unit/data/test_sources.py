"""The grammar for data, and what each mistake says."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shard_making import encoded, write_tar

from mae_lightning.data.catalogue import CATALOGUE
from mae_lightning.data.manifest_file import WORK_FOLDER
from mae_lightning.data.reading import read_rows
from mae_lightning.data.sources import WrongLabelsError, held_out_name, open_source, splits_of, with_classes_of

Shards = Callable[..., list[Path]]


def place_images(folder: Path, *names: str) -> Path:
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(value, Path(name).suffix[1:]))
    return folder


def contents(name: str, role: str = "train") -> list[tuple[str, int, bytes]]:
    manifest = open_source(name, role).manifest
    rows = read_rows(manifest, np.arange(len(manifest)))
    return [(manifest.keys[row], int(manifest.label[row]), data) for row, data in rows]


EXPECTED = [(f"{number:04d}", number % 3, encoded(number)) for number in range(9)]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_shards_by_every_spelling_give_the_same_samples(make_shards: Shards, suffix: str) -> None:
    paths = make_shards([4, 5], suffix)
    folder = paths[0].parent
    spellings = [f"{folder}/shard-*{suffix}", f"{folder}/shard-{{000..001}}{suffix}", str(folder)]
    for spelling in spellings:
        assert contents(spelling) == EXPECTED
    assert contents(str(paths[1])) == EXPECTED[4:]


def test_shards_without_labels_have_none(make_shards: Shards) -> None:
    source = open_source(str(make_shards([3], labels=False)[0]), "train")
    assert not source.manifest.is_labelled
    assert source.num_classes is None
    assert source.manifest.label.tolist() == [-1, -1, -1]


def test_class_names_come_from_the_file_beside_the_shards(make_shards: Shards) -> None:
    path = make_shards([4])[0]
    assert open_source(str(path), "train").num_classes == 3
    (path.parent / "classes.txt").write_text("a\nb\nc\nd\n")
    source = open_source(str(path), "train")
    assert (source.class_names, source.num_classes) == (("a", "b", "c", "d"), 4)


def test_the_catalogue_says_what_its_shards_hold() -> None:
    entry = CATALOGUE["fashion_mnist"]
    source = open_source("fashion_mnist", "train")
    assert (len(source.manifest), source.num_classes, source.num_channels) == (5000, 10, 1)
    assert (source.mean, source.std) == (entry.mean, entry.std)
    assert np.bincount(source.manifest.label).tolist() == [500] * 10
    for held_out in (open_source("fashion_mnist", "val"), open_source("fashion_mnist:val", "train")):
        assert (len(held_out.manifest), held_out.split) == (1000, "val")
    assert "The MIT License" in (entry.folder / "LICENSE").read_text()


def test_a_folder_of_classes_is_labelled(tmp_path: Path) -> None:
    place_images(tmp_path, "dog/b.png", "cat/a.jpg", "dog/c.webp", ".hidden/x.png", "cat/.dot.png")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    source = open_source(str(tmp_path), "train")
    assert source.class_names == ("cat", "dog")
    assert [(key, label) for key, label, _ in contents(str(tmp_path))] == [("cat/a", 0), ("dog/b", 1), ("dog/c", 1)]


@pytest.mark.parametrize(
    "names", [("a.png", "b.jpg"), ("trip/a.png", "trip/b.png"), ("x/y/a.png", "x/b.png", "c.png")], ids=str
)
def test_flat_and_nested_folders_are_unlabelled(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = open_source(str(place_images(tmp_path, *names)), "train")
    assert (len(source.manifest), source.num_classes) == (len(names), None)


def test_a_folder_of_splits_gives_the_one_of_its_role(tmp_path: Path) -> None:
    place_images(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png", "val/b/5.png")
    assert [len(open_source(str(tmp_path), role).manifest) for role in ("train", "val")] == [2, 3]
    assert len(open_source(f"{tmp_path}:val", "train").manifest) == 3
    assert held_out_name(str(tmp_path)) == str(tmp_path)
    assert held_out_name(str(tmp_path / "train")) is None
    place_images(tmp_path / "sole", "val/a/1.png", "val/b/2.png")
    assert "has no split 'train'; it has val: name" in error_of(str(tmp_path / "sole"))
    assert len(open_source(f"{tmp_path}/sole:val", "train").manifest) == 2
    assert held_out_name(str(tmp_path / "sole")) is None  # as training data, if named so, they are no held-out ones


def test_one_image_is_a_data_set(tmp_path: Path) -> None:
    place_images(tmp_path, "me.png")
    assert contents(str(tmp_path / "me.png")) == [("me", -1, encoded(0))]


def test_held_out_labels_follow_the_training_names(tmp_path: Path) -> None:
    place_images(tmp_path, "train/a/1.png", "train/b/2.png", "train/c/3.png", "val/b/4.png", "val/c/5.png")
    training, held_out = (open_source(str(tmp_path), role) for role in ("train", "val"))
    assert held_out.manifest.label.tolist() == [0, 1]
    assert with_classes_of(held_out, training).manifest.label.tolist() == [1, 2]
    assert with_classes_of(held_out, training).class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"has the class 'a', which .* lacks"):
        with_classes_of(training, held_out)
    unlabelled = replace(held_out, manifest=replace(held_out.manifest, label=np.array([-1, 1])))
    assert with_classes_of(unlabelled, training).manifest.label.tolist() == [-1, 2]


def error_of(name: str, role: str = "train") -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        open_source(name, role)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_mistakes_in_naming_data_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    assert error_of("fashion_mnits") == (
        "no data at 'fashion_mnits': neither a path nor a name in the catalogue; did you mean 'fashion_mnist'?"
    )
    assert error_of("zzz").endswith("known names: fashion_mnist")
    assert error_of("fashion_mnist:test") == "fashion_mnist has no split 'test'; it has train, val"
    assert error_of(f"{tmp_path}/nowhere") == f"no data at '{tmp_path}/nowhere': there is no such file or folder"
    assert error_of(f"{tmp_path}/a.tar") == f"no shard at {tmp_path}/a.tar; give the path of a .tar or .tar.gz file"
    assert error_of(f"{tmp_path}/a-*.tar") == f"no shard matches '{tmp_path}/a-*.tar'"
    assert (
        error_of(f"{tmp_path}/empty")
        == f"no images and no shards in {tmp_path}/empty; put .jpg, .png or .webp files or .tar shards there"
    )
    assert error_of(f"{tmp_path}/notes.txt") == f"{tmp_path}/notes.txt is no image, shard or manifest"
    assert error_of(f"{tmp_path}/empty:val") == f"no folder 'val' in {tmp_path}/empty"
    assert error_of(f"{tmp_path}/manifest.json") == f"no manifest at {tmp_path}/manifest.json"
    assert "would run a shell command" in error_of("pipe:cat a.tar")
    assert error_of(f"{tmp_path}/a-{{0..2.tar") == (
        f"{tmp_path}/a-{{0..2.tar: braces that do not match; write such as {{000..127}}"
    )
    for empty in ("", " "):
        assert error_of(empty) == "the name of the data is empty; name a folder, shards, a manifest or an image"
    place_images(tmp_path, "me.png")
    for bare in (f"{tmp_path}/a.tar", f"{tmp_path}/me.png"):
        assert error_of(f"{bare}:val") == f"{bare} is one split alone: leave out ':val'"
    remote = error_of("https://user:secret@example.org/a-{00..10}.tar?token=secret")
    assert remote.startswith("https://example.org/a-{00..10}.tar is remote: make a manifest once with")
    assert "secret" not in remote


def test_a_label_beyond_the_class_names_is_an_error(make_shards: Shards) -> None:
    path = make_shards([4])[0]
    (path.parent / "classes.txt").write_text("a\nb\n")
    assert error_of(str(path)) == f"{path}: sample '0002' has label 2, and the classes are 0 to 1"


def test_members_that_are_no_samples_are_left_out(tmp_path: Path) -> None:
    image = encoded(1)
    path = write_tar(tmp_path / "a.tar", {"./x.png": image, "__meta__": b"", "._y.png": b"", "README": b""})
    assert contents(str(path)) == [("./x", -1, image)]


def test_class_folders_that_are_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    place_images(tmp_path, "store/bird/1.png", "photos/cat/2.png", "photos/dog/3.png")
    (tmp_path / "photos/bird").symlink_to(tmp_path / "store/bird")
    for link in ("photos/cat/up", "photos/dog/over"):
        (tmp_path / link).symlink_to(tmp_path / "photos")
    names = [key for key, *_ in contents(f"{tmp_path}/photos") if key.count("/") == 1]
    assert names == ["bird/1", "cat/2", "dog/3"]
    for link in ("photos/cat/up", "photos/dog/over"):
        (tmp_path / link).unlink()
    source = open_source(f"{tmp_path}/photos", "train")
    assert (source.class_names, source.manifest.label.tolist()) == (("bird", "cat", "dog"), [0, 1, 2])


def test_an_unfinished_pack_is_no_data(tmp_path: Path, make_shards: Shards) -> None:
    folder = make_shards([3])[0].parent
    (folder / WORK_FOLDER).mkdir()
    for name in (str(folder), f"{folder}:train"):
        assert error_of(name) == f"{folder} holds an unfinished `pack`: run the same command again, and it goes on"


def test_a_split_that_is_not_there_is_not_made_of_the_others(tmp_path: Path) -> None:
    place_images(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png")
    assert error_of(str(tmp_path), "val") == (
        f"{tmp_path} has no split 'val'; it has train, test: name {tmp_path}:train"
    )
    assert error_of(f"{tmp_path}:val") == f"no folder 'val' in {tmp_path}"
    assert len(open_source(str(tmp_path), "train").manifest) == 2
    assert splits_of(str(tmp_path)) == ("train", "test")


def test_a_class_called_as_a_split_hides_no_other_class(tmp_path: Path) -> None:
    place_images(tmp_path, "car/1.png", "train/2.png", "bus/3.png")
    line = f"{tmp_path} has 'train', a split's name, beside 'bus' with images too: rename 'train' if it is a class;"
    assert error_of(str(tmp_path)).startswith(line)
    with pytest.raises(ValueError, match=re.escape(line)):
        splits_of(str(tmp_path))
    assert len(open_source(f"{tmp_path}:train", "train").manifest) == 1
    place_images(tmp_path / "apart", "train/1.png", "val/2.png", ".hidden/3.png")
    (tmp_path / "apart/notes").mkdir()
    (tmp_path / "apart/notes/read.txt").write_text("no image")
    assert splits_of(f"{tmp_path}/apart") == ("train", "val")


@pytest.mark.parametrize("listed", [None, "50%\n100%\n"])
def test_class_folders_may_have_any_name(tmp_path: Path, listed: str | None) -> None:
    place_images(tmp_path, "100%/1.png", "50%/2.png")
    if listed is not None:
        (tmp_path / "classes.txt").write_text(listed)
    source = open_source(str(tmp_path), "train")
    assert source.class_names == (("100%", "50%") if listed is None else ("50%", "100%"))
    assert source.manifest.label.tolist() == ([0, 1] if listed is None else [1, 0])


@pytest.mark.parametrize(
    ("listed", "names", "labels"),
    [
        ("dog\ncat\n", ("cat/1.png",), [1]),
        ("dog\ncat\n", ("cat/deep/1.png", "dog/2.png"), [1, 0]),
        ("dog\n", ("cat/1.png", "dog/2.png"), [0, 1]),
        ("dog\n", ("cat/deep/1.png", "dog/2.png"), [-1, -1]),
        ("dog\n", ("dog/1.png", "2.png"), [-1, -1]),
    ],
)
def test_folders_that_a_file_lists_are_classes(
    tmp_path: Path, listed: str, names: tuple[str, ...], labels: list[int]
) -> None:
    place_images(tmp_path, *names)
    (tmp_path / "classes.txt").write_text(listed)
    by_key = dict(zip((name.removesuffix(".png") for name in names), labels, strict=True))
    assert {key: label for key, label, _ in contents(str(tmp_path))} == by_key


@pytest.mark.parametrize("name", ["data[1].tar", "data{1.tar", "data{1,2}.tar", "C#/data.tar.gz", "a?/data.tgz"])
def test_a_shard_that_is_there_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_tar(tmp_path / name, {"x.png": encoded(1)})
    assert contents(f"{tmp_path}/{name}") == [("x", -1, encoded(1))]


def test_folders_called_as_shards_are_none(tmp_path: Path) -> None:
    place_images(tmp_path, "a.png", "old.tar/b.png")
    assert [key for key, *_ in contents(str(tmp_path))] == ["a", "old.tar/b"]
    assert contents(f"{tmp_path}/old.tar/b.png") == [("b", -1, encoded(1))]


@pytest.mark.parametrize("pattern", ["{a,a}.tar", "{*,a}.tar", "{a,./a}.tar"])
def test_a_shard_comes_once_where_patterns_overlap(tmp_path: Path, pattern: str) -> None:
    write_tar(tmp_path / "a.tar", {"x.png": encoded(1)})
    assert contents(f"{tmp_path}/{pattern}") == [("x", -1, encoded(1))]


def test_class_names_are_read_as_editors_write_them(make_shards: Shards) -> None:
    path = make_shards([3])[0]
    classes = path.parent / "classes.txt"
    classes.write_bytes("\ufeffa\r\né\r\nc\r\n\r\n".encode())
    assert open_source(str(path), "train").class_names == ("a", "é", "c")
    classes.write_bytes(b"a\n\xe9\nc\n")
    assert error_of(str(path)) == f"{classes} is not UTF-8: invalid continuation byte at byte 2; save it in UTF-8"


def test_held_out_labels_beyond_those_of_training_are_an_error(make_shards: Shards) -> None:
    training, held_out = (open_source(str(make_shards([n], folder=str(n))[0]), "train") for n in (2, 4))
    with pytest.raises(WrongLabelsError, match=r"sample '0002' has label 2, and the classes are 0 to 1$"):
        with_classes_of(held_out, training)
    assert with_classes_of(training, held_out) == training
    unlabelled = replace(training, manifest=replace(training.manifest, label=np.full(2, -1)))
    assert with_classes_of(held_out, unlabelled) == held_out

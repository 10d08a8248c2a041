"""The table of samples: packed strings, selection, and the files it is kept in."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_lightning.data import manifest_file
from mae_lightning.data.indexing import index_shards
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.manifest_file import read_description, read_table, write_manifest
from mae_lightning.data.sources import held_out_name, open_source
from mae_lightning.data.strings import Strings

Shards = Callable[..., list[Path]]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9)), st.data())
def test_packed_strings_are_the_list(items: list[str], data: st.DataObject) -> None:
    strings = Strings.pack(items)
    assert list(strings) == items
    assert list(strings[1:4]) == items[1:4]
    places = data.draw(st.lists(st.integers(0, len(items) - 1))) if items else []
    assert list(strings.take(np.array(places, np.int64))) == [items[place] for place in places]
    with pytest.raises(IndexError):
        strings[len(items)]


def test_names_that_are_not_utf8_survive() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert Strings.pack([name])[0] == name


def two_splits(make_shards: Shards) -> tuple[Path, dict[str, Manifest]]:
    train, val = make_shards([5, 4], folder="out/train"), make_shards([3], folder="out/val")
    splits = {
        name: index_shards(str(paths[0].parent), [path.name for path in paths])
        for name, paths in (("train", train), ("val", val))
    }
    return train[0].parent.parent, splits


def written(make_shards: Shards, **facts: Any) -> tuple[Path, dict[str, Manifest]]:
    folder, splits = two_splits(make_shards)
    sums = {"train": ["a", "b"], "val": ["c"]}
    return write_manifest(folder, splits, sums, **facts), splits


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()


def test_a_manifest_comes_back_as_it_was_written(make_shards: Shards) -> None:
    facts = {"class_names": ["a", "b", "c"], "num_channels": 3, "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 2.0]}
    path, splits = written(make_shards, **facts, extra={"note": "for people"})
    description = read_description(str(path))
    assert description.class_names == ("a", "b", "c")
    assert (description.num_channels, description.mean, description.std) == (3, (0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    for name, manifest in splits.items():
        found = read_table(description, name)
        assert found.digest == manifest.digest
        assert found.offset.tolist() == manifest.offset.tolist()
        assert Path(found.path(0)).samefile(manifest.path(0))
    content = json.loads(path.read_text())
    assert content["note"] == "for people"
    size = Path(splits["val"].path(0)).stat().st_size
    assert content["splits"]["val"]["shards"] == [
        {"name": "val/shard-000.tar", "samples": 3, "bytes": size, "sha256": "c"}
    ]
    assert sorted(file.name for file in path.parent.glob(".*")) == []


@pytest.mark.parametrize("spelling", ["{folder}/manifest.json", "{folder}", "{folder}:train"])
def test_a_manifest_is_a_source_with_splits(make_shards: Shards, spelling: str) -> None:
    path, _ = written(make_shards, mean=[0.5], std=[0.2])
    name = spelling.format(folder=path.parent)
    training = open_source(name, "train")
    assert (len(training.manifest), training.mean, training.split) == (9, (0.5,), "train")
    if not name.endswith(":train"):
        assert held_out_name(name) == name
        assert len(open_source(name, "val").manifest) == 3
    with pytest.raises(ValueError, match="has no split 'test'; it has train, val"):
        open_source(f"{path}:test", "train")


def test_a_manifest_of_one_split_serves_any_role(make_shards: Shards) -> None:
    folder, splits = two_splits(make_shards)
    path = write_manifest(folder, {"train": splits["train"]}, {"train": ["a", "b"]})
    assert len(open_source(str(path), "val").manifest) == 9
    assert held_out_name(str(path)) is None


def test_remote_shards_keep_their_addresses(make_shards: Shards, tmp_path: Path) -> None:
    _, splits = two_splits(make_shards)
    remote = replace(splits["val"], base="https://example.org/data")
    path = write_manifest(tmp_path, {"val": remote}, {"val": ["x"]})
    assert open_source(str(path), "val").manifest.path(0) == "https://example.org/data/shard-000.tar"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{"), "is no manifest of this program"),
        (lambda path: path.write_text('{"format": 1}'), "is no manifest of this program"),
        (lambda path: path.write_text(path.read_text().replace("shards", "sh4rds")), "is no manifest of this program"),
        (lambda path: path.write_text(path.read_text().replace("splits", "spl1ts")), "is no manifest of this program"),
        (lambda path: path.write_text(path.read_text().replace('"format": 1', '"format": 99')), "format 99, and this"),
        (lambda path: next(path.parent.glob("samples-train*")).write_bytes(b"junk"), "cannot be used"),
        (lambda path: path.write_text(path.read_text().replace("digest", "d1gest", 1)), "cannot be used"),
    ],
)
def test_a_damaged_manifest_is_named(make_shards: Shards, damage: Callable[[Path], object], message: str) -> None:
    path, _ = written(make_shards)
    damage(path)
    with pytest.raises(ValueError, match=message) as error:
        open_source(str(path), "train")
    assert str(path.parent) in str(error.value)


@pytest.mark.parametrize("column", ["container", "kind", "offset", "size", "label", "key_ends"])
def test_a_table_with_numbers_out_of_bounds_is_refused(make_shards: Shards, column: str) -> None:
    path, _ = written(make_shards)
    table = next(path.parent.glob("samples-train*"))
    columns = dict(np.load(table))
    columns[column] = (columns[column].astype(np.int64) - 29_999).astype(columns[column].dtype)
    np.savez(table, **columns)
    with pytest.raises(ValueError, match="cannot be used: "):
        open_source(str(path), "train")


def test_a_table_with_objects_is_refused(make_shards: Shards) -> None:
    path, _ = written(make_shards)
    table = next(path.parent.glob("samples-train*"))
    columns = dict(np.load(table))
    np.savez(table, **{**columns, "label": np.array([{}] * 9, object)})
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        open_source(str(path), "train")


@pytest.mark.parametrize(("owner", "name"), [(manifest_file.os, "fsync"), (Path, "replace")], ids=["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_manifest(
    make_shards: Shards, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    path, _ = written(make_shards)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match="no space left"):
        written(make_shards, mean=[0.9])
    assert path.read_text() == before
    assert len(open_source(str(path), "train").manifest) == 9


def test_the_digest_follows_what_the_samples_are(make_shards: Shards) -> None:
    _, splits = two_splits(make_shards)
    manifest = splits["train"]
    moved = replace(manifest, base="elsewhere")
    assert moved.digest == manifest.digest
    for column in ("kind", "size", "label", "place", "container"):
        changed = replace(manifest, **{column: getattr(manifest, column)[::-1] + 1})
        assert changed.digest != manifest.digest
    assert replace(manifest, keys=Strings.pack("abcdefghi")).digest != manifest.digest

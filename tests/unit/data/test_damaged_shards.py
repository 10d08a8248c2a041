"""Faults R5 and R6: nothing that is wrong with a shard passes in silence, and nothing in it runs."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shard_making import encoded, npy, write_tar

from mae_lightning.data.indexing import index_shards
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.manifest_file import read_description, write_manifest
from mae_lightning.data.plan import Lanes, Slice
from mae_lightning.data.reading import stream_bytes
from mae_lightning.data.samples import SampleMaker
from mae_lightning.data.sources import open_source
from mae_lightning.data.stream import MicroBatches
from mae_lightning.data.verify import sha256_of, verify_split

Shards = Callable[..., list[Path]]


def header_offsets(path: Path) -> list[int]:
    with tarfile.open(path) as tar:
        return [member.offset for member in tar]


def damage(path: Path, case: str) -> None:
    """Cases 1-7 of R5."""
    data = bytearray(path.read_bytes())
    headers = header_offsets(path)
    cuts = {"1 inside a member": headers[4] + 520, "2 on a boundary": headers[4], "3 inside a header": headers[4] + 100}
    if case in cuts:
        del data[cuts[case] :]
    elif case == "4 flipped header byte":
        data[headers[4] + 5] ^= 0xFF
    elif case == "5 empty tar":
        data = bytearray(10240)
    elif case == "6 no bytes":
        data = bytearray()
    elif case == "7 HTML":
        data = bytearray(b"<html><body>404 Not Found</body></html>".ljust(2048))
    path.write_bytes(data)


CASES = {
    "1 inside a member": "unexpected end of data",
    "2 on a boundary": "cut short: no end-of-archive mark at byte",
    "3 inside a header": "cut short: no end-of-archive mark at byte",
    "4 flipped header byte": "not a tar archive, or a damaged header at byte",
    "5 empty tar": "the shard has no samples",
    "6 no bytes": "cut short: no end-of-archive mark at byte 0",
    "7 HTML": "not a tar archive, or a damaged header at byte 0",
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_shard_is_named_when_it_is_indexed(make_shards: Shards, case: str) -> None:
    whole, broken = make_shards([3, 3])
    damage(broken, case)
    with pytest.raises(ValueError) as error:
        open_source(str(whole.parent), "train")
    assert str(error.value).startswith(f"{broken}: {CASES[case]}")


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_a_cut_gzip_stream_is_named(make_shards: Shards, kept: float) -> None:
    (path,) = make_shards([30], ".tar.gz")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=f"{path}: "):
        open_source(str(path), "train")


def test_flipped_bytes_in_a_gzip_stream_are_named(make_shards: Shards) -> None:
    (path,) = make_shards([30], ".tar.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # its checksum
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path}: CRC check failed"):
        open_source(str(path), "train")


def sample(**members: bytes) -> dict[str, bytes]:
    return {name.replace("_", "."): data for name, data in members.items()}


IMAGE = encoded(1)
CONTENTS = {
    "9 missing label": (
        sample(a_png=IMAGE, a_cls=b"0", b_png=IMAGE),
        "sample 'b' has no label (.cls), and others have one",
    ),
    "10 not an integer": (sample(a_png=IMAGE, a_cls=b"cat"), "sample 'a' has the label 'cat'; a class index from 0"),
    "10 negative": (sample(a_png=IMAGE, a_cls=b"-1"), "sample 'a' has the label '-1'; a class index from 0"),
    "10 empty": (sample(a_png=IMAGE, a_cls=b""), "sample 'a' has the label ''; a class index from 0"),
    "10 long": (sample(a_png=IMAGE, a_cls=b"1" * 99), "sample 'a' has a label of 99 bytes"),
    "10 huge": (sample(a_png=IMAGE, a_cls=b"1" * 23), f"sample 'a' has the label '{'1' * 23}'; a class index from 0"),
    "14 interleaved": (
        {"a.png": IMAGE, "b.png": IMAGE, "a.cls": b"0", "b.cls": b"1"},
        "sample 'a' comes back after another one: the members of two samples are mixed",
    ),
    "no image": (sample(a_txt=b"x"), "sample 'a' has no image (txt)"),
    "two images": (sample(a_png=IMAGE, a_jpg=IMAGE), "sample 'a' has more than one image (png, jpg)"),
    "twice": ({"a.png": IMAGE, "a.PNG": IMAGE}, "sample 'a' has two members '.png'"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_samples_that_make_no_sense_are_named(tmp_path: Path, case: str) -> None:
    members, message = CONTENTS[case]
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(ValueError) as error:
        open_source(str(path), "train")
    assert str(error.value).startswith(f"{path}: {message}")


def manifest_of(paths: list[Path]) -> Path:
    folder = paths[0].parent
    manifest = index_shards(str(folder), [path.name for path in paths])
    return write_manifest(folder, {"train": manifest}, {"train": [sha256_of(str(path)) for path in paths]})


def problems(manifest: Manifest) -> tuple[list[bool], list[str]]:
    make = SampleMaker((4, 4), 3, torch.uint8, seed=0)
    (parcel,) = MicroBatches(manifest, make, Slice(), len(manifest), Lanes(), None).read(0)
    return parcel["batch"]["valid"].tolist(), [reason for _, reason in parcel["problems"]]


def test_a_missing_or_another_shard_is_named_before_training(make_shards: Shards) -> None:
    """Cases 8 and 16."""
    paths = make_shards([3, 4])
    location = str(manifest_of(paths))
    assert len(open_source(location, "train").manifest) == 7
    content = paths[1].read_bytes()
    paths[1].write_bytes(content + bytes(512))
    with pytest.raises(
        ValueError, match=f"{paths[1]}: {len(content) + 512} bytes, and the manifest says {len(content)}"
    ):
        open_source(location, "train")
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"no shard at {paths[1]}"):
        open_source(location, "train")


def test_verify_names_each_wrong_shard(make_shards: Shards) -> None:
    """Cases 1-8, 15 and 16 against a manifest."""
    paths = make_shards([3] * 6)
    description = read_description(str(manifest_of(paths)))
    assert list(verify_split(description, "train")) == []
    damage(paths[0], "1 inside a member")
    pixels = bytearray(paths[1].read_bytes())
    pixels[600] ^= 0xFF
    paths[1].write_bytes(pixels)
    paths[2].unlink()
    paths[3].write_bytes(make_shards([3, 3], folder="other")[1].read_bytes())
    write_tar(paths[4], {"0012.png": IMAGE, "0012.cls": b"0"})
    assert list(verify_split(description, "train")) == [
        f"{paths[0]}: unexpected end of data",
        f"{paths[1]}: the checksum differs; its samples are the manifest's, their bytes are not",
        f"no shard at {paths[2]}",
        f"{paths[3]}: the checksum differs; sample '0003' stands where '0009' should",
        f"{paths[4]}: 1 samples, and the manifest says 3",
    ]


@pytest.mark.parametrize(("case", "cut"), [("12 cut", 0.6), ("13 no bytes", 0.0)])
def test_a_cut_image_is_named_and_its_row_stays_blank(tmp_path: Path, case: str, cut: float) -> None:
    whole = encoded(3, "jpg", (40, 40))
    path = write_tar(tmp_path / "a.tar", {"a.jpg": whole, "b.jpg": whole[: int(len(whole) * cut)], "c.jpg": whole})
    valid, reasons = problems(open_source(str(path), "train").manifest)
    assert valid == [True, False, True]
    assert len(reasons) == 1
    assert reasons[0].startswith(f"{path}: sample 'b': ")


def test_a_shard_cut_after_it_was_indexed_is_named_by_offset_and_by_stream(make_shards: Shards) -> None:
    (path,) = make_shards([4])
    manifest = open_source(str(path), "train").manifest
    headers = header_offsets(path)
    os.truncate(path, headers[6] + 20)
    valid, reasons = problems(manifest)
    assert valid == [True, True, False, False]
    assert reasons[0] == f"{path}: sample '0002': the shard ends after 0 of the image's {manifest.size[2]} bytes"
    streamed = dict(stream_bytes(manifest, np.arange(4)))
    assert [isinstance(streamed[row], bytes) for row in range(4)] == valid
    assert "cut, or not the manifest's" in str(streamed[2])


# ------------------------------------------------------------------ R6: shards run no code


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "pyd", "pth", "pkl.gz"])
def test_other_members_are_never_read(tmp_path: Path, suffix: str) -> None:
    """R6, 1-5, by offset and by stream."""
    payload = pickle.dumps(_Payload(tmp_path / "ran"))
    path = write_tar(tmp_path / "a.tar", {"a.png": IMAGE, f"a.{suffix}": payload})
    manifest = open_source(str(path), "train").manifest
    assert problems(manifest) == ([True], [])
    assert list(stream_bytes(manifest, np.arange(1))) == [(0, IMAGE)]
    assert not (tmp_path / "ran").exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    """R6, 6."""
    array = np.array([[_Payload(tmp_path / "ran")]], dtype=object)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    path = write_tar(tmp_path / "a.tar", {"a.npy": buffer.getvalue()})
    valid, reasons = problems(open_source(str(path), "train").manifest)
    assert valid == [False]
    assert reasons == [f"{path}: sample 'a': an array of object; uint8, uint16 or floats are meant"]
    assert not (tmp_path / "ran").exists()


def test_no_shell_is_started(tmp_path: Path, make_shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """R6, 7 and 8: `pipe:` in data and in a manifest, and webdataset's rewriting of URLs by the environment."""
    (path,) = make_shards([2])
    with pytest.raises(ValueError, match="would run a shell command"):
        open_source(f"pipe:mkdir {tmp_path}/ran; cat {path}", "train")
    monkeypatch.setenv("GOPEN_REWRITE", f"{tmp_path}=pipe:mkdir {tmp_path}/ran; cat {tmp_path}")
    manifest = open_source(str(path), "train").manifest
    assert len(list(stream_bytes(manifest, np.arange(2)))) == 2
    assert not (tmp_path / "ran").exists()


def test_names_lead_nowhere_and_links_are_no_samples(tmp_path: Path) -> None:
    """R6, 9 and 10."""
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "a.tar"
    with tarfile.open(write_tar(path, {"../../escape.png": IMAGE, "/b.png": IMAGE}), "a") as tar:
        link = tarfile.TarInfo("c.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    manifest = open_source(str(path), "train").manifest
    assert list(manifest.keys) == ["../../escape", "/b"]
    assert problems(manifest) == ([True, True], [])
    assert sorted(tmp_path.rglob("*")) == before


def test_only_known_formats_are_opened(tmp_path: Path) -> None:
    """R6, 11."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n"
    path = write_tar(tmp_path / "a.tar", {"a.jpg": script})
    valid, reasons = problems(open_source(str(path), "train").manifest)
    assert valid == [False]
    assert "are no image of JPEG, PNG, WEBP, GIF, BMP" in reasons[0]


def test_a_gzip_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """R6, 12: 512 MB of zeros as one image, in a shard of half a megabyte."""
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar, Path("/dev/zero").open("rb") as zeros:
        header = tarfile.TarInfo("a.png")
        header.size = 2**29
        tar.addfile(header, zeros)
    with pytest.raises(ValueError, match=r"member 'a.png' has 536870912 bytes; images have at most"):
        open_source(str(path), "train")


def test_a_huge_extended_header_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**40
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match="an extended header of 1099511627776 bytes"):
        open_source(str(path), "train")


def test_arrays_that_promise_more_than_they_have_are_refused(tmp_path: Path) -> None:
    bomb = npy(np.zeros((2, 2, 3), np.uint8)).replace(b"(2, 2, 3)", b"(9999999, 9999999, 3)")
    path = write_tar(tmp_path / "a.tar", {"a.npy": bomb})
    valid, reasons = problems(open_source(str(path), "train").manifest)
    assert valid == [False]
    assert "sample 'a'" in reasons[0]

"""Faults R5, 1 to 16: `verify` names each one that befell packed shards, `index` each that foreign shards came with."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae_lightning.__main__ import main
from mae_lightning.data.contents import Contents
from mae_lightning.data.indexing import hash_shards
from mae_lightning.data.manifest_file import write_manifest
from mae_lightning.data.origins import find_contents
from mae_lightning.data.packing import Packing, pack

Members = dict[str, bytes]
SHARD = "shards/train-00001.tar"


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def images(folder: Path, first: int) -> dict[str, Contents]:
    """Eight images of two classes, four a class."""
    for number in range(first, first + 8):
        path = folder / ("cat" if number % 2 else "dog") / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    return find_contents(str(folder))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of four, twice: `shards`, and `others` with other images."""
    folder = tmp_path_factory.mktemp("packed")
    for name, first in (("shards", 0), ("others", 8)):
        pack(images(folder / f"{name}-images", first), folder / name, Packing(shard_samples=4, shuffle=False))
    return folder


@pytest.fixture
def here(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with whole shards in it, to be damaged."""
    for name in ("shards", "others"):
        shutil.copytree(packed / name, tmp_path / name)
    (tmp_path / "shards/classes.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def offsets(path: Path) -> list[int]:
    with tarfile.open(path) as tar:
        return [member.offset for member in tar]


def bytewise(change: Callable[[bytearray, list[int]], bytes | bytearray]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(bytearray(path.read_bytes()), offsets(path))) and None


def flipped(data: bytearray, place: int) -> bytearray:
    data[place] ^= 0xFF
    return data


def rewritten(change: Callable[[Members], Members]) -> Callable[[Path], None]:
    """The shard with other members, otherwise as `pack` writes it."""

    def damage(path: Path) -> None:
        content = change(members(path))
        with tarfile.open(path, "w") as tar:
            for name, data in content.items():
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))

    return damage


FIRST = "dog/00"


def with_content(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return rewritten(lambda content: content | {name: change(content[name])})


def interleaved(content: Members) -> Members:
    return dict(sorted(content.items(), key=lambda item: item[0].endswith("cls")))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "1 cut inside a member": bytewise(lambda data, at: data[: at[4] + 520]),
    "2 cut on a member boundary": bytewise(lambda data, at: data[: at[4]]),
    "3 cut inside a header": bytewise(lambda data, at: data[: at[4] + 100]),
    "4 flipped header byte": bytewise(lambda data, at: flipped(data, at[4] + 5)),
    "5 empty tar": bytewise(lambda data, at: bytes(10240)),
    "6 no bytes": lambda path: path.write_bytes(b""),
    "7 HTML": lambda path: path.write_bytes(b"<html><body>404 Not Found</body></html>".ljust(2048)),
    "8 missing": lambda path: path.unlink(),
    "9 label missing": rewritten(lambda content: {k: v for k, v in content.items() if k != f"{FIRST}.cls"}),
    "10 label no integer": with_content(f"{FIRST}.cls", lambda data: b"dog"),
    "11 label out of range": with_content(f"{FIRST}.cls", lambda data: b"2"),
    "12 cut JPEG": with_content(f"{FIRST}.jpg", lambda data: data[: len(data) // 2]),
    "13 empty JPEG": with_content(f"{FIRST}.jpg", lambda data: b""),
    "14 interleaved": rewritten(interleaved),
    "15 scan bytes": bytewise(lambda data, at: data[: at[0] + 1000] + bytes(8) + data[at[0] + 1008 :]),
    "16 another shard": lambda path: shutil.copy("others/train-00001.tar", path),
    "zeros cut off": bytewise(lambda data, at: data[:-700]),
    "joined": bytewise(lambda data, at: data + data),
}
SHARD_DAMAGE = {
    "1 cut inside a member": f"{SHARD}: unexpected end of data",
    "2 cut on a member boundary": f"{SHARD}: cut short: no end-of-archive mark at byte",
    "3 cut inside a header": f"{SHARD}: cut short: no end-of-archive mark at byte",
    "4 flipped header byte": f"{SHARD}: not a tar archive, or a damaged header at byte",
    "5 empty tar": f"{SHARD}: the shard has no samples",
    "6 no bytes": f"{SHARD}: cut short: no end-of-archive mark at byte 0",
    "7 HTML": f"{SHARD}: not a tar archive, or a damaged header at byte 0",
    "8 missing": f"no shard at {SHARD}",
    "10 label no integer": f"{SHARD}: sample '{FIRST}' has the label 'dog'; a class index from 0",
    "14 interleaved": f"{SHARD}: sample '{FIRST}' comes back after another one: the members of two samples are mixed",
    "joined": f"{SHARD}: more bytes follow the end-of-archive mark: archives joined end to end?",
}
VERIFIED = SHARD_DAMAGE | {
    "9 label missing": f"{SHARD}: sample '{FIRST}' has no label (.cls), and others have one",
    "11 label out of range": f"{SHARD}: the checksum differs; sample '{FIRST}' has label 2, and the manifest says 1",
    "12 cut JPEG": f"{SHARD}: the checksum differs; sample '{FIRST}' has ",
    "13 empty JPEG": f"{SHARD}: the checksum differs; sample '{FIRST}' has 0 bytes, and the manifest says ",
    "15 scan bytes": f"{SHARD}: the checksum differs; its samples are the manifest's, their bytes are not",
    "16 another shard": f"{SHARD}: the checksum differs; sample 'dog/08' stands where '{FIRST}' should",
    "zeros cut off": f"{SHARD}: the checksum differs; 19780 bytes, and the manifest says 20480, and a tar's blocks are",
}


@pytest.mark.parametrize("case", VERIFIED)
def test_verify_names_it(here: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    assert main(["verify", "shards", "--decode"]) == 0
    assert capsys.readouterr().out.startswith("shards/manifest.json: no fault in 8 samples, 2 shards; ")
    DAMAGE[case](Path(SHARD))
    assert main(["verify", "shards"]) == 2
    fault, summary = capsys.readouterr().out.splitlines()
    assert fault.startswith(VERIFIED[case])
    assert summary.startswith("shards/manifest.json: 1 fault in 8 samples, 2 shards; ")


INDEXED = SHARD_DAMAGE | {
    "9 label missing": f"{SHARD}: sample '{FIRST}' has no label (.cls), and others have one",
    "11 label out of range": f"{SHARD}: sample '{FIRST}' has label 2, and the classes are 0 to 1",
}
PASSED_BY = {
    "12 cut JPEG": f"{SHARD}: sample '{FIRST}': ",
    "13 empty JPEG": f"{SHARD}: sample '{FIRST}': no bytes are no image of",
}


@pytest.mark.parametrize("case", INDEXED)
def test_index_names_it(here: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    command = ["index", "shards/train-{00000..00001}.tar", "--out", "index"]
    assert main(command) == 0
    DAMAGE[case](Path(SHARD))
    shutil.rmtree("index")
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {INDEXED[case].replace(SHARD, str(here / SHARD))}")
    assert error.count("\n") == 1
    assert not Path("index").exists()


@pytest.mark.parametrize("case", PASSED_BY)
def test_index_names_what_it_cannot_measure(here: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    DAMAGE[case](Path(SHARD))
    assert main(["index", "shards/train-{00000..00001}.tar", "--out", "index"]) == 0
    named, *_ = capsys.readouterr().out.splitlines()
    assert named.startswith(f"not measured: {PASSED_BY[case].replace(SHARD, str(here / SHARD))}")


@pytest.mark.parametrize("case", ["12 cut JPEG", "13 empty JPEG"])
def test_decoding_names_images_that_were_bad_from_the_start(
    here: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    DAMAGE[case](Path(SHARD))
    manifest, sha256 = hash_shards("shards", ["train-00000.tar", "train-00001.tar"])
    write_manifest(Path("shards"), {"train": manifest}, {"train": sha256})
    assert main(["verify", "shards"]) == 0
    capsys.readouterr()
    assert main(["verify", "shards", "--decode"]) == 2
    fault, _ = capsys.readouterr().out.splitlines()
    assert fault.startswith(PASSED_BY[case])

"""`index` and `verify`: shards made elsewhere, and manifests that are wrong themselves."""

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from image_making import class_images, digests, picture, write_files, write_tar

from mae_lightning.data.manifest_file import read_description, write_manifest
from mae_lightning.data.sources import open_source


@pytest.fixture
def foreign(here: Path) -> Path:
    """Three shards as ImageNet's public ones are: jpg, cls and json members."""
    for shard in range(3):
        content = {}
        for number in range(3 * shard, 3 * shard + 3):
            content |= {
                f"{number:04d}.jpg": picture(number, "JPEG"),
                f"{number:04d}.cls": str(number % 2).encode(),
                f"{number:04d}.json": b'{"note": 1}',
            }
        (here / "data").mkdir(exist_ok=True)
        write_tar(here / f"data/shard-{shard:03d}.tar{'.gz' if shard == 2 else ''}", content)
    return here / "data"


PATTERNS = ["data/shard-{000..001}.tar", "data/shard-002.tar.gz"]


@pytest.mark.parametrize(
    ("patterns", "out", "found"),
    [
        (PATTERNS, "index", 9),
        (["data/shard-*.tar"], "index/manifest.json", 6),
        (["data/shard-*.tar", "./data/shard-001.tar"], "index", 6),
        (["data/shard-000.tar"], "data", 3),
    ],
)
def test_foreign_shards(cli: Callable, foreign: Path, patterns: list[str], out: str, found: int) -> None:
    outcome = cli("index", *patterns, "--out", out)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"train: {found} images in ")
    folder = out.removesuffix("/manifest.json")
    manifest = open_source(folder, "train").manifest
    assert manifest.label.tolist() == [number % 2 for number in range(found)]
    record = read_description(f"{folder}/manifest.json").splits["train"]["shards"]
    for shard in record:
        name = Path(shard["name"]).name
        assert shard["sha256"] == digests(foreign)[name]
        assert shard["bytes"] == (foreign / name).stat().st_size
    assert cli("verify", folder).code == 0


def test_two_splits_and_class_names(cli: Callable, foreign: Path) -> None:
    (foreign / "classes.txt").write_text("cat\ndog\n")
    outcome = cli("index", "data/shard-000.tar", "--val", "data/shard-001.tar", "--out", "index")
    assert outcome.code == 0, outcome.err
    for split, keys in (("train", ["0000", "0001", "0002"]), ("val", ["0003", "0004", "0005"])):
        source = open_source("index", split)
        assert list(source.manifest.keys) == keys
        assert source.class_names == ("cat", "dog")
    content = json.loads(Path("index/manifest.json").read_text())
    assert content["num_channels"] == 3
    assert all(0.4 < mean < 0.6 for mean in content["mean"])


def test_a_folder_that_is_a_link_is_written_through(cli: Callable, foreign: Path) -> None:
    (foreign / "deep/er").mkdir(parents=True)
    Path("link").symlink_to("data/deep/er")
    assert cli("index", "data/shard-000.tar", "--out", "link").code == 0
    for folder in ("link", "data/deep/er"):
        assert cli("verify", folder).code == 0


def test_an_image_that_cannot_be_decoded_is_not_measured(cli: Callable, here: Path) -> None:
    write_tar(here / "some.tar", {"0.png": b"no image", "1.png": picture(1)})
    outcome = cli("index", "some.tar", "--out", "some")
    assert outcome.code == 0, outcome.err
    assert "not measured: " in outcome.out
    assert "some.tar: sample '0': bytes that begin with" in outcome.out
    write_tar(here / "whole.tar", {"1.png": picture(1)})
    cli("index", "whole.tar", "--out", "whole")
    some, whole = (read_description(f"{name}/manifest.json") for name in ("some", "whole"))
    assert (some.mean, some.std) == (whole.mean, whole.std)
    write_tar(here / "none.tar", {"0.png": b"no image"})
    outcome = cli("index", "none.tar", "--out", "none")
    assert outcome.code == 2
    assert "none.tar: sample '0': bytes that begin with" in outcome.err


@pytest.fixture
def server(foreign: Path) -> Iterator[str]:
    """The shards by http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *what: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(foreign))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_shards_by_http_are_the_local_ones(cli: Callable, foreign: Path, server: str) -> None:
    Path("classes.txt").write_text("of\nother\ndata\n")
    outcome = cli("index", f"{server}/shard-{{000..001}}.tar", f"{server}/shard-002.tar.gz", "--out", "far")
    assert outcome.code == 0, outcome.err
    cli("index", *PATTERNS, "--out", "near")
    far, near = (read_description(f"{name}/manifest.json") for name in ("far", "near"))
    assert [shard["name"] for shard in far.splits["train"]["shards"]][2] == f"{server}/shard-002.tar.gz"
    for mine, theirs in zip(far.splits["train"]["shards"], near.splits["train"]["shards"], strict=True):
        assert {**mine, "name": ""} == {**theirs, "name": ""}
    assert far.splits["train"]["digest"] == near.splits["train"]["digest"]
    assert far.mean == near.mean
    assert far.class_names is None
    assert cli("verify", "far", "--decode").code == 0
    (foreign / "shard-001.tar").write_bytes((foreign / "shard-000.tar").read_bytes())
    outcome = cli("verify", "far")
    assert outcome.code == 2
    assert outcome.out.splitlines()[0].startswith(f"{server}/shard-001.tar: the checksum differs; sample '0000' stands")
    (foreign / "shard-001.tar").unlink()
    assert cli("verify", "far").out.startswith(f"{server}/shard-001.tar: cannot be read: HTTP 404")


def test_whatever_fsspec_reaches(cli: Callable, foreign: Path) -> None:
    with fsspec.open("memory://bucket/a.tar", "wb") as file:
        file.write((foreign / "shard-000.tar").read_bytes())
    assert cli("index", "memory://bucket/a.tar", "--out", "index").code == 0
    assert list(open_source("index", "train").manifest.keys) == ["0000", "0001", "0002"]


def test_secrets_in_urls_are_pointed_out(cli: Callable, foreign: Path, server: str) -> None:
    outcome = cli("index", f"{server}/shard-000.tar?token=hush", "--out", "index")
    assert outcome.out.startswith("the manifest names the shards without user and query: to read them, set MAE_")
    assert "hush" not in outcome.out + Path("index/manifest.json").read_text()
    assert "without user" not in cli("index", f"{server}/shard-000.tar", "--out", "other").out


MISTAKES = {
    "nothing-*.tar --out=index": "no shard matches 'nothing-*.tar'",
    "no.tar --out=index": "no shard at ",
    "data/shard-000.tar --out=mine.json": "--out mine.json: a manifest is always called manifest.json; name its folder",
    "data/shard-000.tar --out=data/shard-001.tar": "--out data/shard-001.tar: data/shard-001.tar is a file, not a",
    "data/shard-000.tar --out=index --classes=no.txt": "no file of class names at no.txt",
    "data/shard-000.tar http://127.0.0.1:1/a.tar --out=index": "shards of one split lie either all on this machine",
    "pipe:ls --out=index": "'pipe:ls' would run a shell command",
    "data/shard-000.tar": "index: the following arguments are required: --out",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_one_line(cli: Callable, foreign: Path, command: str) -> None:
    outcome = cli("index", *command.split())
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {MISTAKES[command]}")
    assert outcome.err.count("\n") == 1
    assert not Path("index").exists()


@pytest.fixture
def packed(cli: Callable, here: Path) -> Path:
    write_files(here / "photos", class_images(12))
    assert cli("pack", "photos", "--out", "shards", "--val-fraction=0.5", "--shard-samples=3").code == 0
    return here / "shards"


def edited(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_all_is_well(cli: Callable, packed: Path) -> None:
    for name in ("shards", "shards/manifest.json"):
        outcome = cli("verify", name, "--decode")
        assert outcome.code == 0
        assert outcome.out.startswith("shards/manifest.json: no fault in 12 samples, 4 shards; ")
        assert outcome.err == ""


def test_every_fault_of_every_split_is_a_line(cli: Callable, packed: Path) -> None:
    (packed / "train-00000.tar").unlink()
    (packed / "val-00001.tar").write_bytes(b"")
    outcome = cli("verify", "shards")
    assert outcome.code == 2
    lines = outcome.out.splitlines()
    assert lines[0] == "no shard at shards/train-00000.tar"
    assert lines[1].startswith("shards/val-00001.tar: cut short")
    assert lines[2].startswith("shards/manifest.json: 2 faults in 12 samples, 4 shards")


def test_a_damaged_table_hides_no_other_split(cli: Callable, packed: Path) -> None:
    (table,) = packed.glob("samples-train-*.npz")
    table.write_bytes(table.read_bytes()[:-100])
    (packed / "val-00000.tar").unlink()
    lines = cli("verify", "shards").out.splitlines()
    assert lines[0].startswith(f"shards/{table.name} cannot be used: ")
    assert lines[1] == "no shard at shards/val-00000.tar"


def test_counts_of_the_manifest_are_compared(cli: Callable, packed: Path) -> None:
    edited(packed, lambda content: content["splits"]["val"]["shards"][1].update(samples=4))
    outcome = cli("verify", "shards")
    assert outcome.out.splitlines()[0] == "shards/val-00001.tar: 3 samples in the table, and the manifest says 4"


@pytest.mark.parametrize(
    ("label", "fault"),
    [(2, "has label 2, and the classes are 0 to 1"), (-1, "has no label, and others have one")],
)
def test_labels_of_the_manifest_are_compared_with_its_classes(
    cli: Callable, packed: Path, label: int, fault: str
) -> None:
    source = open_source("shards", "train")
    labels = source.manifest.label.copy()
    labels[4] = label
    changed = type(source.manifest)(**{**vars_of(source.manifest), "label": labels})
    sums = [shard["sha256"] for shard in read_description("shards/manifest.json").splits["train"]["shards"]]
    write_manifest(packed, {"train": changed}, {"train": sums}, class_names=["cat", "dog"])
    outcome = cli("verify", "shards")
    assert outcome.code == 2
    assert outcome.out.splitlines()[0] == f"{source.manifest.describe(4)} {fault}"


def vars_of(manifest: object) -> dict[str, np.ndarray]:
    return {name: getattr(manifest, name) for name in type(manifest).__dataclass_fields__}


def test_no_manifest(cli: Callable, here: Path) -> None:
    outcome = cli("verify", "nowhere")
    assert (outcome.code, outcome.err) == (2, "error: no manifest at nowhere/manifest.json\n")

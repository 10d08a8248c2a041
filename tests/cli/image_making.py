"""Small folders of images for the commands."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, kind: str = "PNG", size: tuple[int, int] = (10, 12), mode: str = "RGB") -> bytes:
    """An image of noise, height by width."""
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, *channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_files(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def class_images(count: int = 12, classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, bytes]:
    """Images in class folders, in turns."""
    return {f"{classes[index % len(classes)]}/{index:02d}.png": picture(index) for index in range(count)}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in tree(folder).items()}


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def members(path: Path) -> dict[str, bytes]:
    """Every member of a shard, in order."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}

"""Headers of tar shards: what lies where, without decoding, and never past a damaged byte in silence."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from mae_lightning.data.urls import public_name

__all__ = ["DAMAGE", "Member", "TarSample", "is_gzipped", "read_samples", "split_name"]

DAMAGE = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError)
MAX_LABEL = 32
MAX_MEMBER = 2**28
MAX_EXTENDED_HEADER = 2**20
TAIL_BYTES = 2**16


@dataclass(frozen=True)
class Member:
    """Where a member's bytes lie in the unpacked shard."""

    offset: int
    size: int


@dataclass
class TarSample:
    """Members of one key, by extension; the label's text where there is one."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    label: str | None = None


class _StrictHeader(tarfile.TarInfo):
    """`tarfile` ends quietly at a damaged or missing header; here only the closing zero block ends a shard."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.REGULAR_TYPES and self.size > MAX_EXTENDED_HEADER:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes at byte {tar.offset}")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictHeader:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{_cause(error)} at byte {tar.offset}") from None


def _cause(error: Exception) -> str:
    if "empty" in str(error) or "truncated" in str(error):
        return "cut short: no end-of-archive mark"
    return "not a tar archive, or a damaged header"


def is_gzipped(name: str) -> bool:
    """Whether a shard's name says that it is compressed, query and fragment of a URL aside."""
    return public_name(name).endswith((".gz", ".tgz"))


def split_name(name: str) -> tuple[str, str] | None:
    """A member's key and lower-case extension, from the first dot of its file name on; None for what is no sample."""
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    if not stem or not dot or re.match(r"__[^/]*__($|/)", name):
        return None
    return folder + slash + stem, extension.lower()


def read_samples(stream: io.BufferedReader, gzipped: bool) -> Iterator[TarSample]:
    """Samples of one shard in order, from its headers and its `cls` members.

    Args:
        stream: The shard as it is stored.
        gzipped: Whether it must be unpacked first.

    Raises:
        ValueError: The shard is cut, damaged or no tar archive, or a key comes back after another one.
    """
    sample: TarSample | None = None
    done: set[str] = set()
    try:
        for tar, header in _headers(stream, gzipped):
            split = split_name(header.name) if header.isreg() else None
            if split is None:
                continue
            key, extension = split
            if sample is None or key != sample.key:
                if sample is not None:
                    done.add(sample.key)
                    yield sample
                if key in done:
                    raise ValueError(
                        f"sample '{key}' comes back after another one: the members of two samples are mixed"
                    )
                sample = TarSample(key)
            if extension in sample.members:
                raise ValueError(f"sample '{key}' has two members '.{extension}'")
            sample.members[extension] = Member(header.offset_data, header.size)
            if extension == "cls":
                sample.label = _label_text(tar, header, key)
    except DAMAGE as error:
        raise ValueError(str(error) or type(error).__name__) from None
    if sample is not None:
        yield sample


def _headers(stream: io.BufferedReader, gzipped: bool) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every header, once nothing but zeros follows the end mark; a compressed stream's checksum counts."""
    unpacked = gzip.GzipFile(fileobj=stream) if gzipped else stream
    mode = "r|" if gzipped or not stream.seekable() else "r:"
    with tarfile.open(fileobj=unpacked, mode=mode, tarinfo=_StrictHeader) as tar:  # type: ignore[call-overload]
        for header in tar:
            if header.size > MAX_MEMBER:
                raise ValueError(f"member '{header.name}' has {header.size} bytes; images have at most {MAX_MEMBER}")
            yield tar, header
            tar.members.clear()
        while tail := tar.fileobj.read(TAIL_BYTES):
            if tail.strip(b"\0"):
                raise ValueError("more bytes follow the end-of-archive mark: archives joined end to end?")


def _label_text(tar: tarfile.TarFile, header: tarfile.TarInfo, key: str) -> str:
    if header.size > MAX_LABEL:
        raise ValueError(f"sample '{key}' has a label of {header.size} bytes; a class index as decimal text is meant")
    content = tar.extractfile(header)
    assert content is not None
    return content.read().decode("utf-8", "replace").strip()

"""Opening shards wherever they lie, without a shell and without leaking the secrets in a URL."""

from __future__ import annotations

import base64
import io
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Protocol, cast, runtime_checkable
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import fsspec

__all__ = ["SECRETS_VARIABLE", "Patience", "is_remote", "open_url", "public_name", "stored_size", "with_secrets"]

SECRETS_VARIABLE = "MAE_LIGHTNING_URL_SECRETS"
"""URLs with user or query, between them white space: what lies below one of them is opened with its user and query."""


@dataclass(frozen=True)
class Patience:
    """How long remote reads are waited for.

    Attributes:
        timeout: Seconds without an answer after which a read has failed (http and https; others have their own).
        tries: Tries before the failure is final; the n-th waits 2^(n - 1) seconds for the next.

    Raises:
        ValueError: One of them is not above 0.
    """

    timeout: float = 30.0
    tries: int = 5

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.tries < 1:
            raise ValueError(
                f"remote reads need a timeout above 0 s and at least 1 try, not {self.timeout} s and {self.tries}"
            )


def is_remote(name: str) -> bool:
    """Whether a name is a URL rather than a local path.

    Raises:
        ValueError: The URL would run a shell.
    """
    scheme, separator, _ = name.partition(":")
    if separator and scheme.lower() == "pipe":
        raise ValueError(f"'{name}' would run a shell command; name a file or a URL instead")
    return "://" in name and scheme.lower() != "file"


def public_name(url: str) -> str:
    """A URL without user, password, query and fragment, any of which may hold a token: for messages and records."""
    if not is_remote(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def with_secrets(url: str) -> str:
    """A URL with the user and query that the environment gives for it, if it has none; the longest prefix decides.

    Records hold public names alone, and a secret goes to no other host than the one that it was given for.
    """
    known = [urlsplit(secret) for secret in os.environ.get(SECRETS_VARIABLE, "").split()]
    parts = urlsplit(url)
    found = max((one for one in known if _is_below(parts, one)), key=lambda one: len(one.path), default=None)
    if found is None or parts.query or "@" in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=found.netloc, query=found.query))


def _is_below(parts: SplitResult, prefix: SplitResult) -> bool:
    place, within = (one.netloc.rpartition("@")[2] for one in (parts, prefix))
    folder = prefix.path.rstrip("/")
    is_inside = parts.path == prefix.path or parts.path.startswith(f"{folder}/")
    return (parts.scheme, place) == (prefix.scheme, within) and is_inside


def open_url(url: str, patience: Patience = Patience()) -> io.BufferedReader:
    """A stream over a local file, an http(s) URL or whatever fsspec reaches; remote ones go on after a lost connection.

    Raises:
        FileNotFoundError: A local file is not there.
        ValueError: A remote one still fails after all tries, or has no reader.
    """
    if not is_remote(url):
        return Path(url.removeprefix("file://")).open("rb")
    opener = _open_http if urlsplit(url).scheme.lower() in ("http", "https") else _open_fsspec
    return io.BufferedReader(_Retrying(with_secrets(url), opener, patience), buffer_size=2**20)


def stored_size(url: str, timeout: float) -> int | None:
    """Bytes of a remote file, without reading it; None where the server does not say.

    Asks for its first byte, which links signed for reading alone allow too.

    Raises:
        ValueError: It cannot be read.
    """
    url = with_secrets(url)
    try:
        if urlsplit(url).scheme.lower() not in ("http", "https"):
            filesystem, path = fsspec.core.url_to_fs(url)
            return int(filesystem.info(path)["size"])
        with urllib.request.urlopen(_request(url, "bytes=0-0"), timeout=timeout) as answer:
            size = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers.get(
                "Content-Length", ""
            )
    except (OSError, HTTPException, ImportError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise ValueError(f"cannot be read: {_reason(error)}") from None
    return int(size) if size.isdigit() else None


@runtime_checkable
class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


def _request(url: str, span: str | None = None) -> urllib.request.Request:
    """For a part of a file or all of it; a user in the URL, which urllib does not know, is told to that host alone."""
    user, has_user, host = urlsplit(url).netloc.rpartition("@")
    bare = urlunsplit(urlsplit(url)._replace(netloc=host, fragment=""))
    request = urllib.request.Request(bare, headers={"Range": span} if span else {})
    if has_user:
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return request


def _open_http(url: str, start: int, timeout: float) -> _Readable:
    try:
        response = urllib.request.urlopen(_request(url, f"bytes={start}-" if start else None), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    if start and response.status != 206:
        response.close()
        raise ValueError("the server cannot go on in the middle of a file")
    return cast("_Readable", response)


def _open_fsspec(url: str, start: int, timeout: float) -> _Readable:
    try:
        stream = fsspec.open(url, "rb").open()
    except ImportError as error:
        raise ValueError(f"needs another package: {error}") from None
    if start:
        stream.seek(start)
    return cast("_Readable", stream)


class _Retrying(io.RawIOBase):
    """Bytes of a URL in order; a read that fails opens the URL again where it stopped."""

    def __init__(self, url: str, opener: Callable[[str, int, float], _Readable], patience: Patience) -> None:
        self._url = url
        self._opener = opener
        self._patience = patience
        self._stream: _Readable | None = None
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        for attempt in range(self._patience.tries):
            try:
                if self._stream is None:
                    self._stream = self._opener(self._url, self._position, self._patience.timeout)
                data = self._stream.read(len(buffer))
                if not data and getattr(self._stream, "length", None):  # what http.client calls the bytes still to come
                    raise ConnectionError("the connection ended too early")
                break
            except (OSError, HTTPException) as error:
                self._drop()
                final = isinstance(error, FileNotFoundError) or getattr(error, "code", 500) in (401, 403, 404, 410)
                if final or attempt == self._patience.tries - 1:
                    raise ValueError(f"cannot be read: {_reason(error)}") from None
                time.sleep(2.0**attempt)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        self._drop()
        super().close()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", error)) or type(error).__name__

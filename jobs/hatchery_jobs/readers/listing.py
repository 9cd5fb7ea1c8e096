"""Lists the files of a source in a fixed order and fingerprints them."""

import codecs
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Final

import fsspec
from fsspec.utils import glob_translate

from hatchery_api.conditions import Reason
from hatchery_api.contract import CLAIM_SCHEME
from hatchery_api.resources.corpus import Files
from hatchery_jobs.runtime import DataError, JobError, RetryableError, SpecError, local_path, sha256_file

_MAGIC: Final = frozenset("*?[")
"""Characters that make a URL a pattern; in http URLs they are literal."""

_VERSION_KEYS: Final = ("sha256", "ETag", "etag", "blob_id", "md5Hash", "generation", "LastModified", "mtime")
"""Keys under which file systems report the version of a file, best first."""

_TRANSIENT_ERRNOS: Final = frozenset(
    {errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ESTALE, errno.EAGAIN}
)
"""Errors of a disk or network that may pass."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    url: str
    """The file in the terms of the spec; files are ordered by URL."""
    store: Any
    """Its fsspec file system."""
    path: str
    """Its path there."""
    version: str
    """sha256 of a local file, else the size and version the store reports."""

    def open(self) -> IO[bytes]:
        """Opens the file for reading bytes."""
        return self.store.open(self.path, "rb")


def list_files(field: str, files: Files) -> list[SourceFile]:
    """The files of the source at `field` of the spec, each once, sorted by URL.

    Raises:
        SpecError: the encoding or the scheme of a URL is unknown.
        DataError: a URL matches nothing, or a folder cannot be listed.
        RetryableError: a store cannot be reached.
    """
    _check_encoding(field, files.encoding)
    found: dict[str, SourceFile] = {}
    for number, url in enumerate(files.urls):
        where = f"{field}.files.urls[{number}]"
        try:
            matches = _matches(url)
        except JobError:
            raise
        except Exception as error:
            raise listing_error(f"{where} {url}", error) from error
        if not matches:
            raise DataError(
                Reason.SOURCE_NOT_FOUND,
                f"{where}: {url} matches no file; check the path (`*` stays within a folder, `**` descends, a folder "
                "needs `/**/*`) and that the claim or bucket holds the data",
            )
        found |= {file.url: file for file in matches}
    return [found[url] for url in sorted(found)]


def fingerprint_files(files: Iterable[SourceFile]) -> str:
    """sha256 over path and version of every file."""
    listing = [[file.url, file.version] for file in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def listing_error(what: str, error: Exception) -> JobError:
    """Converts an error of a file system while listing."""
    if isinstance(error, PermissionError):
        return DataError(
            Reason.UNREADABLE_INPUT,
            f"{what}: no permission to read {error.filename or ''}; make files and folders readable for group 10001 "
            "(fsGroup of the pods), or check the credentials of the store",
        )
    if isinstance(error, FileNotFoundError) and not _hides_an_outage(error):
        return DataError(Reason.SOURCE_NOT_FOUND, f"{what}: not found; check the path")
    if isinstance(error, ValueError | ImportError):
        return SpecError(Reason.INVALID_SPEC, f"{what}: {error}; use claim://, a path, or a scheme the image supports")
    return RetryableError(Reason.UNREADABLE_INPUT, f"{what}: {error or type(error).__name__}; retrying")


def _hides_an_outage(error: FileNotFoundError) -> bool:
    """Fsspec reports every http failure as "not found"; the cause tells an outage from a missing file."""
    cause = error.__cause__
    lost = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return lost or getattr(cause, "status", 0) >= HTTPStatus.INTERNAL_SERVER_ERROR


def is_transient(error: OSError) -> bool:
    """Whether a retry may succeed: lost connections and failing disks, not bad data."""
    return isinstance(error, ConnectionError | TimeoutError) or error.errno in _TRANSIENT_ERRNOS


def _check_encoding(field: str, encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise SpecError(
            Reason.INVALID_SPEC,
            f"{field}.files.encoding: {encoding!r} is not a known encoding; use for example utf-8 or latin-1",
        ) from error


def _matches(url: str) -> list[SourceFile]:
    local = local_path(url)
    return _remote_files(url) if local is None else _local_files(url, str(local))


def _remote_files(url: str) -> list[SourceFile]:
    store, path = fsspec.core.url_to_fs(url)
    if url.startswith(("http://", "https://")) or not _MAGIC & set(path):
        infos = {path: store.info(path)}
    else:
        infos = store.glob(path, detail=True)
    files = {place: info for place, info in infos.items() if info["type"] == "file"}
    return [SourceFile(str(store.unstrip_protocol(p)), store, p, _version(info)) for p, info in files.items()]


def _version(info: dict[str, Any]) -> str:
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    return f"{info.get('size')}:{version}"


def _local_files(url: str, path: str) -> list[SourceFile]:
    store = fsspec.filesystem("file")
    absolute = os.path.abspath(path)  # noqa: PTH100 - keeps links
    found = _walk(absolute) if _MAGIC & set(absolute) else [absolute]
    return [SourceFile(_as_written(url, place), store, place, _digest(place)) for place in found if _is_file(place)]


def _walk(pattern: str) -> Iterator[str]:
    """Files that match; unlike the file systems' own globs, raises when a folder cannot be listed.

    Skips hidden folders: `**` means the user's files, not those of version control or of a mounted ConfigMap. Does not
    follow links to folders below the fixed part of the pattern, which could loop.
    """
    fixed = pattern[: min(pattern.find(c) for c in _MAGIC if c in pattern)].rpartition("/")[0]
    matches = re.compile(glob_translate(pattern)).match
    for folder, folders, names in os.walk(fixed or "/", onerror=_raise_unless_gone):
        deep = "**" in pattern or folder.count("/") < pattern.count("/") - 1
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        yield from filter(matches, (f"{folder.rstrip('/')}/{name}" for name in names))


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _is_file(path: str) -> bool:
    """Whether it is a file or a link; reading reports a dangling link."""
    return os.path.isfile(path) or os.path.islink(path)  # noqa: PTH113, PTH114 - Path costs more, files are many


def _digest(path: str) -> str:
    """sha256 of a file; an unreadable one is reported when it is read, where it can be quarantined."""
    try:
        return sha256_file(Path(path))
    except OSError as error:
        if is_transient(error):
            raise
        return f"unreadable: {error.strerror}"


def _as_written(url: str, path: str) -> str:
    """The URL of a match in the terms of the pattern, independent of where claims are mounted."""
    if url.startswith(CLAIM_SCHEME):
        path = CLAIM_SCHEME + os.path.relpath(path, str(local_path(CLAIM_SCHEME)))
    return os.fsencode(path).decode("utf-8", "backslashreplace")  # names on disk may not be UTF-8

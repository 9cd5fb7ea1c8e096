"""Artifacts: folders that are complete once they have a manifest.

`<root>/<key>/manifest.json` lists every file with size and sha256. A stage writes to `<root>/<key>.work`, which on a
claim survives the pod, and commits by renaming the folder. On object stores the manifest is uploaded last. A folder
without a manifest is never read.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec

from hatchery_api.conditions import Reason
from hatchery_api.contract import CLAIM_SCHEME, CLAIMS_PATH
from hatchery_api.status import Artifact
from hatchery_jobs.runtime.errors import DataError, RetryableError

MANIFEST: Final = "manifest.json"
"""Name of the manifest; its presence marks an artifact as complete."""

RECORD: Final = "run"
"""Folder of files that differ between equal runs: timings, logs, tracker files. They are kept, but not content."""

UNHASHED: Final = frozenset({MANIFEST, "report.json", RECORD})
"""Files and folders at the top of an artifact that are not content."""

_CHUNK_BYTES: Final = 1 << 20


def local_path(uri: str) -> Path | None:
    """The local path of a `claim://` URI, a `file://` URI or a plain path; None for a remote store."""
    if uri.startswith(CLAIM_SCHEME):
        return Path(os.environ.get("HATCHERY_CLAIMS_PATH", CLAIMS_PATH)) / uri.removeprefix(CLAIM_SCHEME)
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that readers see either the old or the new content, even after a crash."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Makes the content of a file durable."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def link_file(source: Path, target: Path) -> None:
    """Hard-links a file; copies it where the volume has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_files(folder: Path) -> list[dict[str, Any]]:
    """Path, size in bytes and sha256 of every content file in a folder, sorted by path."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] not in UNHASHED)
    return [
        {"path": p.relative_to(folder).as_posix(), "size": p.stat().st_size, "sha256": sha256_file(p)} for p in paths
    ]


def read_manifest(folder: Path) -> tuple[dict[str, Any], str] | None:
    """The manifest of a local artifact with its digest; None when the artifact is incomplete."""
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    return json.loads(data), hashlib.sha256(data).hexdigest()


def verify(folder: Path, digest: str | None = None) -> Artifact | None:
    """Checks all hashes of the artifact in a local folder; returns None when it is incomplete.

    Raises:
        DataError: a file is missing or changed, or the manifest is not the expected one.
    """
    found = read_manifest(folder)
    if found is None:
        return None
    manifest, actual = found
    if digest not in (None, actual):
        raise DataError(
            Reason.ARTIFACT_CORRUPT,
            f"{folder}: the manifest has digest {actual[:12]}, expected {str(digest)[:12]}; the artifact was replaced: "
            "rebuild the input under a new name",
        )
    for entry in manifest["files"]:
        path = folder / entry["path"]
        if not path.is_file() or path.stat().st_size != entry["size"] or sha256_file(path) != entry["sha256"]:
            raise DataError(
                Reason.ARTIFACT_CORRUPT,
                f"{path}: missing or changed since the build; delete the folder {folder} and rebuild the input",
            )
    size = sum(entry["size"] for entry in manifest["files"])
    return Artifact(uri=str(folder), digest=actual, bytes=size, key=manifest["key"])


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turns operating system errors of a store into retryable errors that name the place and the remedy."""
    try:
        yield
    except PermissionError as error:
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"{where}: no permission to write ({error.strerror}); the volume must be writable for group 10001 "
            "(fsGroup), or choose another claim in spec.storage",
        ) from error
    except OSError as error:
        raise RetryableError(
            Reason.STORAGE_ERROR,
            f"{where}: {error.strerror or error}; check the volume's free space and health, or spec.storage",
        ) from error


@dataclass(frozen=True)
class Draft:
    """An artifact being written."""

    key: str
    """Key of the artifact."""
    uri: str
    """URI of the complete artifact."""
    folder: Path
    """Folder to write to; on a claim it survives the attempt, so that the next one can resume."""
    cache: Path
    """Local folder for downloads of remote artifacts."""
    facts: Mapping[str, Any]
    """Fields of the manifest besides the files: stage, code version, spec, inputs."""

    def existing(self) -> tuple[Artifact, Path] | None:
        """The artifact of this key, verified, if an earlier attempt or run completed it."""
        target = local_path(self.uri)
        if target is None:
            target = self.cache / self.key
            if not _download(self.uri, target):
                return None
        artifact = verify(target)
        return None if artifact is None else (artifact.model_copy(update={"uri": self.uri}), target)

    def commit(self) -> tuple[Artifact, Path]:
        """Hashes all files, writes the manifest last and commits the folder atomically."""
        with storage_errors(self.uri):
            files = content_files(self.folder)
            manifest = {"key": self.key, **self.facts, "files": files}
            data = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
            for entry in files:
                sync_file(self.folder / entry["path"])
            target = local_path(self.uri)
            if target is None:
                _upload(self.folder, self.uri, files, data)
                write_atomically(self.folder / MANIFEST, data)
                target = self.folder
            else:
                write_atomically(self.folder / MANIFEST, data)
                _move(self.folder, target)
        size = sum(entry["size"] for entry in files)
        digest = hashlib.sha256(data).hexdigest()
        return Artifact(uri=self.uri, digest=digest, bytes=size, key=self.key), target


def _move(folder: Path, target: Path) -> None:
    """Renames the folder to the artifact, unless another pod committed the same artifact meanwhile."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if read_manifest(target) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            return
        shutil.rmtree(target)  # incomplete
        folder.rename(target)
    sync_folder(target.parent)


def open_draft(root: str, key: str, facts: Mapping[str, Any], scratch: Path) -> Draft:
    """Opens a draft below a root and creates its work folder.

    Raises:
        RetryableError: the store is not writable.
    """
    uri = f"{root.rstrip('/')}/{key}"
    target = local_path(uri)
    folder = scratch / f"{key}.work" if target is None else target.with_name(f"{key}.work")
    with storage_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)  # the other pods of a gang race for the same file
    return Draft(key=key, uri=uri, folder=folder, cache=scratch, facts=facts)


def open_input(uri: str, digest: str, scratch: Path) -> Path:
    """The local folder of an input artifact, verified.

    Raises:
        DataError: the artifact is missing, incomplete or changed.
    """
    folder = local_path(uri)
    if folder is None:
        folder = scratch / "inputs" / digest[:16]
        _download(uri, folder)
    if verify(folder, digest) is None:
        raise DataError(
            Reason.ARTIFACT_CORRUPT,
            f"{uri}: no complete artifact, maybe because its storage was deleted; rebuild the input",
        )
    return folder


def _upload(folder: Path, uri: str, files: list[dict[str, Any]], manifest: bytes) -> None:
    store, base = fsspec.core.url_to_fs(uri)
    records = (p.relative_to(folder).as_posix() for p in (folder / RECORD).rglob("*") if p.is_file())
    for path in (*records, *(entry["path"] for entry in files)):
        store.put_file(str(folder / path), f"{base}/{path}")
    store.pipe_file(f"{base}/{MANIFEST}", manifest)


def _download(uri: str, folder: Path) -> bool:
    store, base = fsspec.core.url_to_fs(uri)
    if not store.exists(f"{base}/{MANIFEST}"):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    manifest = store.cat_file(f"{base}/{MANIFEST}")
    for entry in json.loads(manifest)["files"]:
        path = folder / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(f"{base}/{entry['path']}", str(path))
    write_atomically(folder / MANIFEST, manifest)
    return True

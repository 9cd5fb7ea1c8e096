"""A content-addressed cache of encoded corpus parts, so that all runs encode equal parts once.

An entry is a folder `<key>` with the shards of one part and the marker `piece.json`, without which it is incomplete.
It appears by one rename; of several pods that write the same entry the first wins, and the others' work is dropped.
The cache lies beside the runs' folders and may be deleted whenever nothing is being encoded. On a claim, artifacts
hard-link their shards, so an entry takes no space of its own while an artifact of it exists.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import fsspec

from hatchery_api.base import Record
from hatchery_jobs.pretrain.data.token_store import Shard, Split, files_digest
from hatchery_jobs.runtime import link_file, local_path, storage_errors, sync_file, sync_folder, write_atomically

MARKER: Final = "piece.json"
"""File that marks an entry as complete."""

_EXISTS: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})
"""Errors of a rename onto an entry that another pod has completed."""


class CacheEntry(Record):
    """One encoded part of a corpus."""

    shards: dict[Split, Shard]
    """A shard per split that has documents; within the entry a shard is named after its split."""
    sizes: dict[str, int]
    """Bytes of every file."""


class ShardCache:
    """The cache, on a claim or in an object store."""

    def __init__(self, uri: str, scratch: Path, owner: str) -> None:
        """The cache at a URI.

        Args:
            uri: its folder.
            scratch: local disk, lost with the pod.
            owner: name unique among running pods; incomplete entries of this name are started over.
        """
        self._uri = uri.rstrip("/")
        self._local = local_path(self._uri)
        self._scratch = scratch
        self._owner = owner

    def find(self, key: str) -> CacheEntry | None:
        """The complete entry of a key, if any."""
        with storage_errors(f"{self._uri}/{key}"):
            try:
                entry = CacheEntry.model_validate_json(self._read(f"{key}/{MARKER}"))
                complete = self._local is None or all(
                    (self._local / key / name).stat().st_size == size for name, size in entry.sizes.items()
                )
            except FileNotFoundError:
                return None
            return entry if complete else None

    @contextmanager
    def staging(self, key: str) -> Iterator[Path]:
        """An empty folder for the files of an entry, removed on exit."""
        base = self._local or self._scratch / "pieces"
        folder = base / f".{key}.{self._owner}"
        with storage_errors(str(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, key: str, folder: Path, shards: dict[Split, Shard]) -> CacheEntry:
        """Publishes the files of a staging folder as an entry."""
        names = [name for shard in shards.values() for name in shard.files]
        entry = CacheEntry(shards=shards, sizes={name: (folder / name).stat().st_size for name in names})
        with storage_errors(f"{self._uri}/{key}"):
            for name in names:
                sync_file(folder / name)
            write_atomically(folder / MARKER, entry.model_dump_json(by_alias=True).encode())
            if self._local is None:
                store, base = fsspec.core.url_to_fs(f"{self._uri}/{key}")
                for name in (*names, MARKER):  # the marker last
                    store.put_file(str(folder / name), f"{base}/{name}")
            else:
                self._move(folder, self._local / key)
        return entry

    def _move(self, folder: Path, target: Path) -> None:
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in _EXISTS:
                raise
            if self.find(target.name) is not None:
                return
            shutil.rmtree(target)  # damaged
            folder.rename(target)
        sync_folder(target.parent)

    def copy(self, key: str, entry: CacheEntry, split: Split, folder: Path, name: str) -> Shard | None:
        """Links or copies a shard into a folder under a new name; None when its digest does not match."""
        source = entry.shards[split]
        shard = source.model_copy(update={"name": name})
        with storage_errors(f"{self._uri}/{key}"):
            for there, here in zip(source.files, shard.files, strict=True):
                (folder / here).unlink(missing_ok=True)
                if self._local is None:
                    store, base = fsspec.core.url_to_fs(f"{self._uri}/{key}")
                    store.get_file(f"{base}/{there}", str(folder / here))
                else:
                    link_file(self._local / key / there, folder / here)
        return shard if files_digest(folder, shard.files) == shard.digest else None

    def discard(self, key: str) -> None:
        """Deletes a damaged entry."""
        with storage_errors(f"{self._uri}/{key}"):
            if self._local is None:
                store, base = fsspec.core.url_to_fs(f"{self._uri}/{key}")
                store.rm_file(f"{base}/{MARKER}")
            else:
                shutil.rmtree(self._local / key, ignore_errors=True)

    def _read(self, name: str) -> bytes:
        if self._local is not None:
            return (self._local / name).read_bytes()
        store, base = fsspec.core.url_to_fs(f"{self._uri}/{name}")
        return bytes(store.cat_file(base))

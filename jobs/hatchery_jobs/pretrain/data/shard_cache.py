"""Encoded parts of corpora, kept by what they are made of, so that equal parts are encoded once by all runs.

A piece is a folder `<key>` with the shards of one part and `piece.json`, which says that it is complete. It appears by
one rename; of several pods that make the same one, the first wins and the others' work is dropped. The folder of
pieces lies beside the runs' own; it may be deleted whenever nothing is being encoded. On a claim, artifacts hold
their shards by hard links, so that a piece takes no space of its own as long as there is an artifact of it.
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

PIECE: Final = "piece.json"
"""The done-marker of a piece."""

_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})
"""What a rename says when another pod was faster."""


class Piece(Record):
    """One encoded part of a corpus."""

    shards: dict[Split, Shard]
    """A shard for each split the part has documents of; their names in the piece are those of the splits."""
    sizes: dict[str, int]
    """Bytes of every file."""


class Pieces:
    """A folder of pieces, on a claim or in an object store."""

    def __init__(self, uri: str, scratch: Path, owner: str) -> None:
        """A folder of pieces.

        Args:
            uri: where it is.
            scratch: local disk, lost with the pod.
            owner: what no other pod at work is called; half-made pieces of this name are made anew.
        """
        self._uri = uri.rstrip("/")
        self._local = local_path(self._uri)
        self._scratch = scratch
        self._owner = owner

    def find(self, key: str) -> Piece | None:
        """A complete piece; None when there is none."""
        with storage_errors(f"{self._uri}/{key}"):
            try:
                piece = Piece.model_validate_json(self._read(f"{key}/{PIECE}"))
                complete = self._local is None or all(
                    (self._local / key / name).stat().st_size == size for name, size in piece.sizes.items()
                )
            except FileNotFoundError:
                return None
            return piece if complete else None

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """An empty folder to write files into; it is gone afterwards."""
        base = self._local or self._scratch / "pieces"
        folder = base / f".{key}.{self._owner}"
        with storage_errors(str(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, key: str, folder: Path, shards: dict[Split, Shard]) -> Piece:
        """Makes the files of a folder a piece."""
        names = [name for shard in shards.values() for name in shard.files]
        piece = Piece(shards=shards, sizes={name: (folder / name).stat().st_size for name in names})
        with storage_errors(f"{self._uri}/{key}"):
            for name in names:
                sync_file(folder / name)
            write_atomically(folder / PIECE, piece.model_dump_json(by_alias=True).encode())
            if self._local is None:
                store, base = fsspec.core.url_to_fs(f"{self._uri}/{key}")
                for name in (*names, PIECE):  # the marker last
                    store.put_file(str(folder / name), f"{base}/{name}")
            else:
                self._move(folder, self._local / key)
        return piece

    def _move(self, folder: Path, target: Path) -> None:
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            if self.find(target.name) is not None:
                return
            shutil.rmtree(target)  # damaged
            folder.rename(target)
        sync_folder(target.parent)

    def copy(self, key: str, piece: Piece, split: Split, folder: Path, name: str) -> Shard | None:
        """Puts a shard of a piece under a name into a folder; None when its content is not what it was."""
        source = piece.shards[split]
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
        """Forgets a damaged piece."""
        with storage_errors(f"{self._uri}/{key}"):
            if self._local is None:
                store, base = fsspec.core.url_to_fs(f"{self._uri}/{key}")
                store.rm_file(f"{base}/{PIECE}")
            else:
                shutil.rmtree(self._local / key, ignore_errors=True)

    def _read(self, name: str) -> bytes:
        if self._local is not None:
            return (self._local / name).read_bytes()
        store, base = fsspec.core.url_to_fs(f"{self._uri}/{name}")
        return bytes(store.cat_file(base))

"""Repositories on disk: objects by sha256, commits as JSON, one small file of heads for each repository.

    objects/ab/ab12…            content, written once
    repos/models/ns/name/repo.json, commits/<sha>.json

Every file is written under a temporary name and renamed, so a killed server leaves the last good state.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from .wire import Problem, Stream, repo_not_found, revision_not_found

KINDS = ("models", "datasets", "spaces")
MAIN = "main"
CHUNK_BYTES = 1 << 20
MIN_SHORT_SHA = 7
"""Characters from which a shortened commit id is accepted."""
MAX_REPO_ID = 96
RESERVED_NAMESPACES = frozenset({*KINDS, "api", "-"})
GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.parquet filter=lfs diff=lfs merge=lfs -text\n"
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_SHA = re.compile(r"[0-9a-f]{7,40}")


def git_blob_id(content: bytes) -> str:
    """The id git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The small text that stands in git for a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Entry:
    """One file of a commit."""

    sha256: str
    size: int
    blob_id: str
    """Git id of the content, or of the pointer for a large file."""
    lfs: bool

    @property
    def pointer_size(self) -> int:
        """Bytes of the pointer of a large file."""
        return len(lfs_pointer(self.sha256, self.size))

    @property
    def etag(self) -> str:
        """What clients name the cached file by."""
        return self.sha256 if self.lfs else self.blob_id


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    files: Mapping[str, Entry]
    title: str
    author: str
    message: str = ""
    parent: str | None = None
    date: str = ""
    id: str = ""
    """40 hex digits; empty, like the date, until it is stored."""


@dataclass(frozen=True)
class Repo:
    """One repository and where its names point."""

    kind: str
    id: str
    private: bool
    created: str
    modified: str
    heads: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """User or organization."""
        return self.id.split("/", maxsplit=1)[0]

    @property
    def web_path(self) -> str:
        """Path of its page below the endpoint."""
        return self.id if self.kind == "models" else f"{self.kind}/{self.id}"


def check_repo_id(repo_id: str) -> None:
    """Refuses ids that the Hub's clients refuse, which also keeps every path inside the root."""
    namespace, _, name = repo_id.partition("/")
    good = (
        all(_NAME.fullmatch(part) for part in (namespace, name))
        and len(repo_id) <= MAX_REPO_ID
        and "--" not in repo_id
        and ".." not in repo_id
        and not name.endswith(".git")
        and namespace not in RESERVED_NAMESPACES
    )
    if not good:
        raise Problem(400, f"Invalid repository id: {repo_id!r}")


class Store:
    """All repositories below one folder; safe for many threads of one process."""

    def __init__(self, root: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._root = root
        self._now = now
        self.lock = threading.RLock()
        """Held over every read-modify-write of a repository."""
        for name in ("objects", "repos", "incoming"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for left_over in (root / "incoming").iterdir():
            left_over.unlink()

    # Objects

    def object_path(self, sha256: str) -> Path:
        """Where content of this hash lies or would lie."""
        return self._root / "objects" / sha256[:2] / sha256

    def has_object(self, sha256: str) -> bool:
        """Whether the content is here."""
        return bool(re.fullmatch(r"[0-9a-f]{64}", sha256)) and self.object_path(sha256).is_file()

    def put_object(self, stream: Stream, expected_sha256: str | None = None) -> str:
        """Stores a stream and returns its sha256; content of another hash than promised is refused."""
        incoming = self._root / "incoming" / secrets.token_hex(8)
        digest = hashlib.sha256()
        try:
            with incoming.open("wb") as file:
                while chunk := stream.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
            found = digest.hexdigest()
            if expected_sha256 not in {None, found}:
                raise Problem(400, f"The content has sha256 {found}, not {expected_sha256}")
            self.object_path(found).parent.mkdir(exist_ok=True)
            incoming.replace(self.object_path(found))
        finally:
            incoming.unlink(missing_ok=True)
        return found

    # Repositories

    def repos(self) -> Iterator[Repo]:
        """Every repository, by kind and name."""
        for kind in KINDS:
            for path in sorted((self._root / "repos" / kind).glob("*/*/repo.json")):
                yield self.repo(kind, f"{path.parent.parent.name}/{path.parent.name}")

    def repo(self, kind: str, repo_id: str) -> Repo:
        """One repository, or a 404."""
        try:
            check_repo_id(repo_id)
            return Repo(**json.loads((self._folder(kind, repo_id) / "repo.json").read_bytes()))
        except (Problem, FileNotFoundError) as error:
            raise repo_not_found(repo_id) from error

    def create(self, kind: str, repo_id: str, *, private: bool, author: str) -> Repo:
        """A new repository with the first commit that the Hub makes too; a second creation is a 409."""
        check_repo_id(repo_id)
        with self.lock:
            if (self._folder(kind, repo_id) / "repo.json").exists():
                raise Problem(409, f"You already created this {kind[:-1]} repo")
            repo = Repo(kind, repo_id, private, created=self._stamp(), modified=self._stamp())
            sha256 = hashlib.sha256(GIT_ATTRIBUTES).hexdigest()
            self.put_object(io.BytesIO(GIT_ATTRIBUTES))
            first = Entry(sha256, len(GIT_ATTRIBUTES), git_blob_id(GIT_ATTRIBUTES), lfs=False)
            commit = self.write_commit(repo, Commit({".gitattributes": first}, "initial commit", author))
            return self._save(replace(repo, heads={MAIN: commit.id}))

    def update(self, repo: Repo, **changes: object) -> Repo:
        """Saves changed fields of a repository."""
        return self._save(replace(repo, modified=self._stamp(), **changes))  # type: ignore[arg-type]

    def delete(self, repo: Repo) -> None:
        """Removes a repository; its objects stay, as others may share them."""
        with self.lock:
            shutil.rmtree(self._folder(repo.kind, repo.id))

    def move(self, repo: Repo, new_id: str) -> Repo:
        """Renames a repository."""
        check_repo_id(new_id)
        with self.lock:
            target = self._folder(repo.kind, new_id)
            if target.exists():
                raise Problem(409, f"{new_id} exists already")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folder(repo.kind, repo.id).rename(target)
            return self._save(replace(repo, id=new_id))

    # Commits

    def resolve(self, repo: Repo, revision: str) -> Commit:
        """The commit a branch, tag or (shortened) id points to, or a 404."""
        sha = repo.heads.get(revision) or repo.tags.get(revision) or revision
        if not _SHA.fullmatch(sha):
            raise revision_not_found(revision)
        found = sorted((self._folder(repo.kind, repo.id) / "commits").glob(f"{sha}*.json"))
        if len(found) != 1:
            raise revision_not_found(revision)
        raw = json.loads(found[0].read_bytes())
        files = {path: Entry(**entry) for path, entry in raw.pop("files").items()}
        return Commit(files, **raw)

    def commit(self, repo: Repo, branch: str, draft: Commit) -> Commit:
        """Puts a new commit on a branch. Hold `lock` from the moment the head was read."""
        commit = self.write_commit(repo, replace(draft, parent=repo.heads[branch]))
        self.update(repo, heads={**repo.heads, branch: commit.id})
        return commit

    def write_commit(self, repo: Repo, draft: Commit) -> Commit:
        """Gives a commit its date and id and stores it; no branch points to it yet."""
        files = {path: draft.files[path] for path in sorted(draft.files)}
        commit = replace(draft, id="", date=self._stamp(), files=files)
        # The nonce keeps equal content committed twice in one millisecond apart.
        seed = json.dumps({**asdict(commit), "repo": f"{repo.kind}/{repo.id}", "nonce": secrets.token_hex(8)})
        commit = replace(commit, id=hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest())
        self._write(self._folder(repo.kind, repo.id) / "commits" / f"{commit.id}.json", asdict(commit))
        return commit

    def history(self, repo: Repo, commit: Commit) -> Iterator[Commit]:
        """The commit and its ancestors, newest first."""
        while True:
            yield commit
            if commit.parent is None:
                return
            commit = self.resolve(repo, commit.parent)

    def _save(self, repo: Repo) -> Repo:
        self._write(self._folder(repo.kind, repo.id) / "repo.json", asdict(repo))
        return repo

    def _write(self, path: Path, value: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        incoming = self._root / "incoming" / secrets.token_hex(8)
        incoming.write_text(json.dumps(value))
        incoming.replace(path)

    def _folder(self, kind: str, repo_id: str) -> Path:
        return self._root / "repos" / kind / repo_id

    def _stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

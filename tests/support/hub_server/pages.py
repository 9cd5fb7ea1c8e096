"""Small HTML pages, so that a person can look at what was pushed."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from .router import WEB, Hub, route
from .store import MAIN, Commit, Repo
from .wire import Request, Response

STYLE = "body{font:15px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}td,th{text-align:left;padding:.2rem 1rem .2rem 0}pre{background:#f4f4f4;padding:1rem;overflow:auto}"
MAX_CARD_BYTES = 100_000
SHORT = 10
"""Digits of a commit id that are shown."""


@route("GET", r"/")
def index(hub: Hub, request: Request) -> Response:
    """The repositories that the caller may see."""
    shown = [repo for repo in hub.store.repos() if hub.visible(repo, request.caller)]
    rows = [
        [repo.kind, _link(f"/{repo.web_path}", repo.id), "private" if repo.private else "public", escape(repo.modified)]
        for repo in shown
    ]
    return _html("Hub", _table(["Kind", "Repository", "Visibility", "Changed"], rows))


@route("GET", r"/-/health")
def health(_hub: Hub, _request: Request) -> Response:
    """For probes."""
    return Response(200, b"ok", "text/plain")


@route("GET", WEB)
@route("GET", rf"{WEB}/(?:tree|commit)/(?P<revision>[^/]+)")
def show_repo(hub: Hub, request: Request) -> Response:
    """One revision: card, files and history."""
    repo = hub.repo(request)
    commit = hub.store.resolve(repo, request.params.get("revision", MAIN))
    names = [*repo.heads, *repo.tags]
    body = [
        f"<p>{_link('/', 'All repositories')} · {repo.kind} · {'private' if repo.private else 'public'}</p>",
        f"<p>Commit <code>{escape(commit.id)}</code> {escape(commit.title)}</p>",
        "<p>" + " · ".join(_link(f"/{repo.web_path}/tree/{quote(name, safe='')}", name) for name in names) + "</p>",
        "<h2>Files</h2>",
        _files(repo, commit),
        "<h2>History</h2>",
        _history(hub, repo, commit),
        _card(hub, commit),
    ]
    return _html(repo.id, "\n".join(body))


def _files(repo: Repo, commit: Commit) -> str:
    base = f"/{repo.web_path}/resolve/{commit.id}"
    rows = [
        [_link(f"{base}/{quote(path)}", path), f"{entry.size:,}", f"<code>{escape(entry.sha256[:SHORT])}</code>"]
        for path, entry in commit.files.items()
    ]
    return _table(["Path", "Bytes", "sha256"], rows)


def _history(hub: Hub, repo: Repo, commit: Commit) -> str:
    rows = [
        [_link(f"/{repo.web_path}/commit/{old.id}", old.id[:SHORT]), *map(escape, (old.title, old.author, old.date))]
        for old in hub.store.history(repo, commit)
    ]
    return _table(["Commit", "Title", "Author", "Date"], rows)


def _card(hub: Hub, commit: Commit) -> str:
    entry = commit.files.get("README.md")
    if entry is None or entry.size > MAX_CARD_BYTES:
        return ""
    text = hub.store.object_path(entry.sha256).read_text(errors="replace")
    return f"<h2>Card</h2><pre>{escape(text)}</pre>"


def _link(target: str, text: str) -> str:
    return f'<a href="{escape(target, quote=True)}">{escape(text)}</a>'


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _html(title: str, body: str) -> Response:
    page = f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>{body}"
    return Response(200, page.encode(), "text/html; charset=utf-8")

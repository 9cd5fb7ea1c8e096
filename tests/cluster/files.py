"""Writing configuration files."""

from pathlib import Path


def write_if_changed(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file unless it holds this text: kube-proxy ends itself whenever its file is written."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(text, encoding="utf-8")

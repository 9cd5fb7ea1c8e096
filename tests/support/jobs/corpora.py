"""CorpusBuilds for the end-to-end tests: small ones, of the Python library that is in the jobs' image."""

from typing import Any

LIBRARY = "/opt/hatchery/python-stdlib"
"""Folder of the image with Python files."""

GOOD = f"{LIBRARY}/json/*.py"
"""A few good documents."""

SMALL = {"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}
"""Pods that never start keep their share of the node: it must be small, or the other cases wait for them."""

Case = tuple[str, dict[str, Any]]
"""Kind and spec."""


def corpus(urls: str = GOOD, *, files: dict[str, Any] | None = None, **spec: Any) -> Case:
    """A CorpusBuild of one source, tried once."""
    source = {"name": "s", "files": {"urls": [urls], **(files or {})}}
    return "CorpusBuild", {"sources": [source], "retry": {"maxAttempts": 1}, "placement": SMALL, **spec}


def resource(name: str, case: Case) -> dict[str, Any]:
    """The manifest of a case."""
    kind, spec = case
    return {"apiVersion": "hatchery.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}

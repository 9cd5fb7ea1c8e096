from pathlib import Path

import pytest
from tests.cluster import images, registry
from tests.cluster.base_image import mirror
from tests.cluster.errors import ClusterError
from tests.cluster.layout import REPOSITORY

SOURCE = images.Source("demo", "images/demo/Dockerfile", ("requirements/demo.txt", "code"))

MIRROR = "http://mirror.example.com/debian"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("images/demo/Dockerfile", "images/demo/Dockerfile.dockerignore", "requirements/demo.txt", "code/a.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


@pytest.mark.parametrize("changed", ["images/demo/Dockerfile", "requirements/demo.txt", "code/a.py", "code/new.py"])
def test_a_changed_input_changes_the_tag(root: Path, changed: str) -> None:
    before = images.content_hash(SOURCE, root)
    (root / changed).write_text("changed")
    assert images.content_hash(SOURCE, root) != before


@pytest.mark.parametrize("unrelated", ["README.md", "code/__pycache__/a.cpython-311.pyc", "code/a.pyc"])
def test_what_is_not_copied_does_not_change_the_tag(root: Path, unrelated: str) -> None:
    before = images.content_hash(SOURCE, root)
    (root / unrelated).parent.mkdir(exist_ok=True)
    (root / unrelated).write_text("changed")
    assert images.content_hash(SOURCE, root) == before


def test_a_renamed_file_changes_the_tag(root: Path) -> None:
    before = images.content_hash(SOURCE, root)
    (root / "code/a.py").rename(root / "code/b.py")
    assert images.content_hash(SOURCE, root) != before


def test_references_name_the_registry_and_both_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(registry.REGISTRY_VARIABLE, raising=False)
    found = images.references()
    assert found.keys() == {"operator", "jobs"}
    assert found["jobs"].startswith("localhost:5000/hatchery-jobs:")
    monkeypatch.setenv(registry.REGISTRY_VARIABLE, "registry.example.com/team")
    assert images.references()["jobs"].startswith("registry.example.com/team/hatchery-jobs:")


@pytest.mark.parametrize("image", images.IMAGES, ids=lambda image: image.name)
def test_a_dockerfile_copies_exactly_what_the_tag_covers(image: images.Source) -> None:
    lines = (REPOSITORY / image.dockerfile).read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert sorted(copied) == sorted(image.inputs)
    ignored = (REPOSITORY / f"{image.dockerfile}.dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(image.inputs)


def test_the_mirror_is_the_machines_own(tmp_path: Path) -> None:
    sources = tmp_path / "sources.list.d"
    sources.mkdir()
    with pytest.raises(ClusterError, match="no Debian mirror"):
        mirror(tmp_path)
    (sources / "debian.sources").write_text(f"Types: deb\nURIs: {MIRROR}/\nSuites: bookworm\n")
    assert mirror(tmp_path) == MIRROR


def test_the_mirror_is_read_from_old_style_lists_too(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] {MIRROR} bookworm main\n")
    assert mirror(tmp_path) == MIRROR

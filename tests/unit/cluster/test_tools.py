import dataclasses
from pathlib import Path

import pytest
from tests.cluster import tools
from tests.cluster.layout import Layout


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "go"
    (folder / "cmd" / "kube").mkdir(parents=True)
    (folder / "go.mod").write_text("module m\n")
    (folder / "go.sum").write_text("")
    (folder / "cmd" / "kube" / "main.go").write_text("package main\n")
    return folder


def test_the_fingerprint_is_stable(module: Path) -> None:
    assert tools.fingerprint(module) == tools.fingerprint(module)


@pytest.mark.parametrize("changed", ["go.mod", "go.sum", "cmd/kube/main.go"])
def test_a_changed_file_changes_the_fingerprint(module: Path, changed: str) -> None:
    before = tools.fingerprint(module)
    (module / changed).write_text("changed")
    assert tools.fingerprint(module) != before


def test_a_changed_version_changes_the_fingerprint(module: Path) -> None:
    newer = (dataclasses.replace(tools.TOOLS[1], version="v9.9.9"), *tools.TOOLS[2:])
    assert tools.fingerprint(module, newer) != tools.fingerprint(module, tools.TOOLS[1:])


def test_built_tools_are_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(cache=tmp_path, state=tmp_path / "state")
    binaries = layout.binaries / tools.fingerprint() / "bin"
    binaries.mkdir(parents=True)
    monkeypatch.setattr(tools, "_build", lambda *_: pytest.fail("nothing is to be built"))
    assert tools.ensure_tools(layout) == binaries


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise tools.ClusterError("no")

    monkeypatch.setattr(tools, "_build", fail)
    monkeypatch.setattr(tools.shutil, "which", lambda _: "/usr/bin/go")
    monkeypatch.setattr(tools.packages, "ensure_packages", lambda *_: None)
    layout = Layout(cache=tmp_path, state=tmp_path / "state")
    with pytest.raises(tools.ClusterError):
        tools.ensure_tools(layout)
    assert list(layout.binaries.iterdir()) == []


def test_every_tool_is_pinned() -> None:
    for tool in tools.TOOLS:
        assert tool.version or tool.packages[0].startswith("./"), tool
        assert tool.version != "latest"


def test_a_peer_is_built_once_and_beside_the_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, built = Layout(cache=tmp_path, state=tmp_path / "state"), []
    source = tmp_path / "module"
    (source / "manifests" / "base").mkdir(parents=True)
    (source / "manifests" / "base" / "crd.yaml").write_text("kind: CustomResourceDefinition")
    monkeypatch.setattr(tools, "_need_go", lambda: None)
    monkeypatch.setattr(tools, "_build", lambda tool, target: built.append(tool) or (target / "peer").write_text(""))
    monkeypatch.setattr(tools, "_module_folder", lambda _: source)
    folders = {tools.ensure_peer(layout, tools.TRAINING_OPERATOR) for _ in range(2)}
    (folder,) = folders
    assert built == [tools.TRAINING_OPERATOR.tool]
    assert {path.name for path in folder.iterdir()} == {"bin", "manifests"}
    assert (folder / "manifests" / "base" / "crd.yaml").is_file()
    assert layout.binaries not in folder.parents


def test_a_peer_whose_build_failed_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise tools.ClusterError("no")

    layout = Layout(cache=tmp_path, state=tmp_path / "state")
    monkeypatch.setattr(tools, "_need_go", lambda: None)
    monkeypatch.setattr(tools, "_build", fail)
    with pytest.raises(tools.ClusterError):
        tools.ensure_peer(layout, tools.TRAINING_OPERATOR)
    assert list(layout.peers.iterdir()) == []


def test_a_peer_is_no_part_of_the_cluster() -> None:
    assert tools.TRAINING_OPERATOR.tool not in tools.TOOLS

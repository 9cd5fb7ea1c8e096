import json
import tomllib
from pathlib import Path

import pytest
from tests.cluster import node
from tests.cluster.layout import Layout
from tests.cluster.pki import Authority


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(cache=tmp_path / "cache", state=tmp_path / "state")


def test_rendered_toml_reads_back_as_it_was() -> None:
    table = {"version": 3, "on": True, "path": 'a "b"', "list": ["x", "y"], "a": {"b.c": {"d": "e"}, "f": 1}}
    assert tomllib.loads(node.toml(table)) == table


def test_containerd_keeps_images_in_the_cache_and_the_rest_in_the_state(layout: Layout) -> None:
    config = tomllib.loads(node.containerd_config(layout, Path("/b")))
    assert config["root"].startswith(str(layout.cache))
    assert config["state"].startswith(str(layout.state))
    assert config["plugins"]["io.containerd.cri.v1.images"]["discard_unpacked_layers"] is True
    assert config["plugins"]["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"] is True


def test_the_kubelet_listens_on_the_nodes_address_and_asks_who_calls(layout: Layout) -> None:
    config = node.kubelet_config(layout, Authority(layout.state / "pki"))
    assert config["address"] == "10.245.0.1"
    assert config["authentication"]["anonymous"]["enabled"] is False
    assert config["authorization"] == {"mode": "Webhook"}


def test_no_address_is_open_to_the_network(layout: Layout) -> None:
    texts = [
        json.dumps(node.proxy_config(layout)),
        json.dumps(node.kubelet_config(layout, Authority(layout.state))),
        node.corefile(layout),
    ]
    assert not [text for text in texts if '"0.0.0.0"' in text or "bind 0.0.0.0" in text]


def test_dns_forwards_only_where_there_is_a_resolver(layout: Layout, tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    assert "forward . " not in node.corefile(layout, resolver)
    resolver.write_text("nameserver 192.0.2.1\n")
    assert f"forward . {resolver}" in node.corefile(layout, resolver)


def test_files_are_left_alone_when_nothing_changed(layout: Layout) -> None:
    authority = Authority(layout.state / "pki")
    first = node.write_configs(layout, Path("/b"), authority)
    written = (layout.state / "kube-proxy.json").stat().st_mtime_ns
    assert node.write_configs(layout, Path("/b"), authority) == first
    assert (layout.state / "kube-proxy.json").stat().st_mtime_ns == written

import json
from pathlib import Path

from tests.cluster import control_plane, host, manifests, node, pause_image
from tests.cluster.layout import Layout
from tests.cluster.prometheus import pod_scrape_config


def test_an_unchanged_machine_has_no_differences() -> None:
    before = {"links": ["eth0", "lo"], "settings": ["a=1"]}
    assert host.difference(before, before) == []


def test_a_difference_names_what_is_left_and_what_is_gone() -> None:
    before = {"links": ["eth0"], "settings": ["a=1"]}
    after = {"links": ["cni0", "eth0"], "settings": ["a=2"]}
    assert host.difference(before, after) == [
        "links: left behind: cni0",
        "settings: left behind: a=2",
        "settings: missing: a=1",
    ]


def test_mounts_are_matched_by_folder_and_not_by_prefix() -> None:
    assert "/proc" in host.mounts_below(Path("/proc"))
    assert host.mounts_below(Path("/pro")) == []


def test_volumes_are_shared_folders_of_the_one_node(tmp_path: Path) -> None:
    layout = Layout(cache=tmp_path, state=tmp_path / "state")
    volume = manifests.persistent_volume(layout, manifests.volume_name(3))
    assert volume["metadata"] == {"name": "hatchery-local-03"}
    assert "ReadWriteMany" in volume["spec"]["accessModes"]
    assert volume["spec"]["local"]["path"].startswith(str(layout.volumes))


def test_the_sandbox_image_is_the_same_for_the_same_binary() -> None:
    assert pause_image.pause_archive(b"binary") == pause_image.pause_archive(b"binary")
    assert pause_image.pause_archive(b"binary") != pause_image.pause_archive(b"other")


def test_the_run_label_comes_from_the_pod() -> None:
    relabel = pod_scrape_config(Path("/k"))["scrape_configs"][0]["relabel_configs"]
    assert {rule.get("target_label") for rule in relabel} >= {"namespace", "pod", "run"}


def test_an_api_server_without_a_node_has_no_endpoint(tmp_path: Path) -> None:
    layout = Layout(cache=tmp_path, state=tmp_path)
    ports = control_plane.Ports(api=1)
    alone = control_plane.ControlPlane(tmp_path, ports, layout=layout).apiserver_arguments()
    assert "--endpoint-reconciler-type=none" in alone
    of_node = control_plane.ControlPlane(tmp_path, ports, node_address="10.245.0.1", layout=layout)
    assert "--advertise-address=10.245.0.1" in of_node.apiserver_arguments()
    assert "--bind-address=127.0.0.1" in of_node.apiserver_arguments()


def test_free_ports_differ() -> None:
    ports = control_plane.Ports.free()
    assert len({ports.api, ports.etcd, ports.etcd_peer, ports.controllers, ports.scheduler}) == 5


def test_the_kubelet_is_started_with_files_of_the_state_folder(tmp_path: Path) -> None:
    layout = Layout(cache=tmp_path, state=tmp_path / "state")
    assert f"--root-dir={layout.state / 'kubelet'}" in node.kubelet_arguments(layout)


def test_requests_of_service_accounts_are_written_down_and_those_of_controllers_are_not(tmp_path: Path) -> None:
    plane = control_plane.ControlPlane(
        tmp_path, control_plane.Ports(api=1), layout=Layout(cache=tmp_path, state=tmp_path)
    )
    assert f"--audit-log-path={plane.audit_log}" in plane.apiserver_arguments()
    policy = json.loads((tmp_path / "audit-policy.json").read_text())
    assert [rule["level"] for rule in policy["rules"]] == ["None", "Metadata", "None"]

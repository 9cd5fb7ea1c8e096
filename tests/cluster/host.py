"""What `up` changes on the machine outside its own folders, and how `down` puts it back.

A snapshot taken before `up` is kept in the state folder; `down` restores it and reports any difference.
"""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.cluster import firewall
from tests.cluster.console import say
from tests.cluster.layout import NODE_ADDRESS, NODE_LINK, POD_BRIDGE, Layout

SYSCTLS = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
"""Pods route through the node, and bridged packets have to meet kube-proxy's rules."""

RESTORED_SYSCTLS = (
    *SYSCTLS,
    "net.ipv4.conf.all.route_localnet",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
)
"""Ours, and those that the kubelet and kube-proxy set by themselves."""

FOREIGN_FOLDERS = (
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "/run/containerd",
    "/run/netns",
    "/opt/containerd",
    "/etc/cni",
    "/usr/libexec/kubernetes",
)
"""Paths compiled into the components; `down` removes those that were not there before."""

CGROUP_NAMES = ("kubepods", "k8s.io")
"""Control groups made by the kubelet at the root of each hierarchy."""


def _sysctl_path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def read_sysctls(names: Iterable[str]) -> dict[str, str]:
    """Return the present values of the settings that this kernel has."""
    paths = {name: _sysctl_path(name) for name in names}
    return {name: path.read_text(encoding="ascii").strip() for name, path in paths.items() if path.exists()}


def write_sysctls(values: dict[str, str]) -> list[str]:
    """Set what differs and return the names; a setting that may not be written is reported and left."""
    changed = []
    for name, value in values.items():
        path = _sysctl_path(name)
        if not path.exists() or path.read_text(encoding="ascii").strip() == value:
            continue
        try:
            path.write_text(value, encoding="ascii")
        except OSError as error:
            say(f"sysctl {name} stays as it is: {error}")
            continue
        changed.append(name)
    return changed


def links() -> set[str]:
    """Return the names of the network links."""
    return {link.name for link in Path("/sys/class/net").iterdir()}


def mounts_below(*folders: Path) -> list[str]:
    """Return the mount points at or below the folders, the innermost first."""
    prefixes = [str(folder) for folder in folders]
    points = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = line.split()[4].encode("ascii", "replace").decode("unicode_escape")
        if any(point == prefix or point.startswith(prefix + "/") for prefix in prefixes):
            points.append(point)
    return sorted(points, key=len, reverse=True)


def control_groups() -> list[Path]:
    """Return the kubelet's control groups, in every hierarchy."""
    root = Path("/sys/fs/cgroup")
    candidates = [parent / name for parent in (root, *root.glob("*/")) for name in CGROUP_NAMES]
    return [path for path in candidates if path.is_dir() and not path.parent.is_symlink()]


def snapshot() -> dict[str, list[str]]:
    """Describe everything outside our folders that a cluster could leave behind."""
    namespaces = Path("/run/netns")
    return {
        "links": sorted(links()),
        "network namespaces": sorted(entry.name for entry in namespaces.iterdir()) if namespaces.is_dir() else [],
        "packet filter": [
            rule for command in firewall.SAVE_COMMANDS for rule in firewall.rules(firewall.save(command))
        ],
        "packet filter tables": firewall.tables(),
        "settings": [f"{name}={value}" for name, value in read_sysctls(RESTORED_SYSCTLS).items()],
        "folders": [folder for folder in FOREIGN_FOLDERS if Path(folder).exists()],
        "control groups": [str(path) for path in control_groups()],
    }


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Return what is new or gone, one line each; empty when the machine is as it was."""
    lines = []
    for part in sorted(before.keys() | after.keys()):
        old, new = set(before.get(part, [])), set(after.get(part, []))
        lines += [f"{part}: left behind: {entry}" for entry in sorted(new - old)]
        lines += [f"{part}: missing: {entry}" for entry in sorted(old - new)]
    return lines


def remember(layout: Layout) -> None:
    """Keep the snapshot of the machine before the first change; a repair must not overwrite it."""
    if not layout.before.exists():
        layout.state.mkdir(parents=True, exist_ok=True)
        layout.before.write_text(json.dumps(snapshot(), indent=1), encoding="utf-8")


def remembered(layout: Layout) -> dict[str, list[str]] | None:
    """Return the snapshot kept by `remember`, None where there is none."""
    try:
        kept: dict[str, list[str]] = json.loads(layout.before.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return kept


def prepare() -> None:
    """Give the node its address and let packets through."""
    for name in write_sysctls(SYSCTLS):
        say(f"sysctl {name} = {SYSCTLS[name]}")
    if NODE_LINK not in links():
        say(f"adding the link {NODE_LINK} with the node's address {NODE_ADDRESS}")
        subprocess.run(["ip", "link", "add", NODE_LINK, "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "replace", f"{NODE_ADDRESS}/32", "dev", NODE_LINK], check=True)
    subprocess.run(["ip", "link", "set", NODE_LINK, "up"], check=True)


def remove_links(kept: Iterable[str]) -> list[str]:
    """Delete the pods' bridge with what is plugged into it, and the node's link."""
    present, removed = links(), []
    ports = Path(f"/sys/class/net/{POD_BRIDGE}/brif")
    plugged = [entry.name for entry in ports.iterdir()] if ports.is_dir() else []
    for name in [*plugged, POD_BRIDGE, NODE_LINK]:
        if name in present and name not in set(kept):
            subprocess.run(["ip", "link", "delete", name], check=False)
            removed.append(name)
    return removed

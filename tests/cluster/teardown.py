"""Stop the cluster and put the machine back: processes, mounts, links, packet filter, settings, folders."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.cluster import firewall, host
from tests.cluster.console import say
from tests.cluster.layout import Layout
from tests.cluster.processes import Processes, start_ticks, terminate

RUNTIME = "containerd"
"""Needed until the pods are gone, so it is stopped after them."""

UNMOUNT_TRIES = 3
CONTROL_GROUP_TRIES = 20


def tear_down(layout: Layout, *, purge: bool) -> list[str]:
    """Remove one cluster; return the differences from the snapshot that `up` took before its first change."""
    before = host.remembered(layout)
    processes = Processes(layout.state)
    if processes.alive("kubelet"):
        processes.stop("kubelet")  # First, or it would start the pods again.
        say("stopped kubelet")
    _remove_pods(layout, processes)
    for name in [*(name for name in reversed(processes.names()) if name != RUNTIME), RUNTIME]:
        if processes.stop(name):
            say(f"stopped {name}")
    kept = before or {}
    _end_containers(layout, kept.get("control groups", []))
    _unmount(layout)
    for name in host.remove_links(kept.get("links", [])):
        say(f"removed link {name}")
    _remove_packet_filter(kept.get("packet filter", []), kept.get("packet filter tables", []))
    _remove_control_groups(kept.get("control groups", []))
    if before is not None:
        _restore_settings(before["settings"])
        _remove_folders(before["folders"])
    leftovers = _leftovers(layout, before)
    if not leftovers:
        shutil.rmtree(layout.state, ignore_errors=True)
        say(f"removed {layout.state}")
    if purge:
        _purge(layout)
    for line in leftovers:
        say(f"NOT CLEAN: {line}")
    say("nothing is left behind" if not leftovers else f"{len(leftovers)} things are left behind")
    return leftovers


def _remove_pods(layout: Layout, processes: Processes) -> None:
    """Have the runtime remove its pods: that runs the CNI plugins and frees mounts in order."""
    record = processes.record(RUNTIME)
    if record is None:
        return
    containerd = Path(f"/proc/{record.pid}/exe").resolve()
    command = [str(containerd.with_name("kube")), "remove-sandboxes", f"unix://{layout.containerd_socket}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    pods = result.stdout.split()
    if pods:
        say(f"removed {len(pods)} pods")
    if result.returncode != 0:
        say(f"the runtime could not remove every pod; their processes are ended below: {result.stderr.strip()}")


def _processes_of(path: Path) -> set[int]:
    """Return the processes in a control group and all below it."""
    members: set[int] = set()
    for file in [path / "cgroup.procs", *path.rglob("cgroup.procs")]:
        try:
            members.update(int(line) for line in file.read_text(encoding="ascii").split())
        except OSError:
            continue
    return members


def shims(layout: Layout) -> set[int]:
    """Return the shims of our containerd: their executable is in our cache, their socket argument in our state."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            executable = (entry / "exe").readlink()
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        is_shim = executable.is_relative_to(layout.binaries) and executable.name.startswith("containerd-shim")
        if is_shim and any(argument.startswith(str(layout.containerd_socket)) for argument in arguments):
            found.add(int(entry.name))
    return found


def _end_containers(layout: Layout, kept: list[str]) -> None:
    """End what a broken runtime left running: members of our kubelet's control groups, then the shims."""
    members: set[int] = set()
    for path in host.control_groups():
        if str(path) not in kept:
            members |= _processes_of(path)
    for pid in [*members, *shims(layout)]:
        ticks = start_ticks(pid)
        if ticks is not None:
            terminate(pid, ticks)
            say(f"ended process {pid} of a container")


def _unmount(layout: Layout) -> None:
    folders = (layout.state, layout.images)
    removed = 0
    for _ in range(UNMOUNT_TRIES):
        for point in host.mounts_below(*folders):
            removed += subprocess.run(["umount", point], capture_output=True, check=False).returncode == 0
    for point in host.mounts_below(*folders):
        removed += subprocess.run(["umount", "--lazy", point], capture_output=True, check=False).returncode == 0
    namespaces = Path("/run/netns")
    for entry in namespaces.glob("cni-*") if namespaces.is_dir() else []:
        subprocess.run(["umount", str(entry)], capture_output=True, check=False)
        entry.unlink(missing_ok=True)
        removed += 1
    if removed:
        say(f"unmounted {removed} mounts")


def _remove_packet_filter(rules_before: list[str], tables_before: list[str]) -> None:
    """Remove our chains and the tables made for them, but none that the snapshot already has."""
    kept = {(rule.split()[0], rule.split()[1][1:]) for rule in rules_before if rule.split()[1].startswith(":")}
    count = firewall.remove_ours(kept)
    if count:
        say(f"removed {count} packet filter chains and the rules that led to them")
    tables = firewall.remove_empty_tables(tables_before)
    if tables:
        say(f"removed {len(tables)} empty packet filter tables")


def _remove_control_groups(kept: list[str]) -> None:
    """Remove the kubelet's control groups, leaves first; only empty ones can be removed."""
    removed = 0
    for path in host.control_groups():
        if str(path) in kept:
            continue
        for folder, _, _ in os.walk(path, topdown=False):
            removed += _remove_control_group(Path(folder))
    if removed:
        say(f"removed {removed} control groups")


def _remove_control_group(path: Path) -> bool:
    """Remove one empty group; the kernel frees it a moment after its last process."""
    for _ in range(CONTROL_GROUP_TRIES):
        try:
            path.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def _restore_settings(settings: list[str]) -> None:
    changed = host.write_sysctls(dict(setting.split("=", 1) for setting in settings))
    if changed:
        say(f"restored {len(changed)} sysctls: {' '.join(changed)}")


def _remove_folders(kept: list[str]) -> None:
    for folder in host.FOREIGN_FOLDERS:
        if folder in kept or not Path(folder).exists():
            continue
        for point in host.mounts_below(Path(folder)):
            subprocess.run(["umount", point], capture_output=True, check=False)
        if not host.mounts_below(Path(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            say(f"removed {folder}")


def _leftovers(layout: Layout, before: dict[str, list[str]] | None) -> list[str]:
    lines = [f"mount: {point}" for point in host.mounts_below(layout.state, layout.images)]
    lines += [f"process: {pid}" for pid in sorted(shims(layout))]
    if before is not None:
        lines += host.difference(before, host.snapshot())
    return lines


def _purge(layout: Layout) -> None:
    for folder in (layout.binaries, layout.images):
        if folder.exists() and not host.mounts_below(folder):
            shutil.rmtree(folder, ignore_errors=True)
            say(f"removed {folder}")

"""Memory limit and OOM kills from both versions of cgroups."""

from hatchery_jobs.pretrain.launcher import cgroup
from hatchery_jobs.pretrain.launcher.cgroup import memory_limit, oom_kills


def test_both_versions_of_control_groups_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    root = tmp_path
    assert (memory_limit(), oom_kills()) == (None, 0)
    (root / "memory").mkdir()
    (root / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (root / "memory/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert (memory_limit(), oom_kills()) == (None, 3)
    (root / "memory/memory.limit_in_bytes").write_text("3355443200\n")
    assert memory_limit() == 3355443200
    (root / "memory.max").write_text("max\n")
    (root / "memory.events").write_text("low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\noom_group_kill 0\n")
    assert (memory_limit(), oom_kills()) == (None, 1)

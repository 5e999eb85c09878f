"""What a process may use of its machine."""

from pathlib import Path

from consumer.system.machine import _cgroup_limits


def test_the_tightest_limit_of_the_cgroups_around_a_process_holds(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/pod/container\n")
    for group, limit in (("", "max"), ("pod", "1000"), ("pod/container", "500")):
        (tmp_path / "fs" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / group / "memory.max").write_text(f"{limit}\n")
    assert _cgroup_limits("memory.max", tmp_path / "fs", own) == ["500", "1000"]
    assert _cgroup_limits("cpu.max", tmp_path / "fs", own) == []
    own.write_text("12:memory:/old\n")
    assert _cgroup_limits("memory.max", tmp_path / "fs", own) == []

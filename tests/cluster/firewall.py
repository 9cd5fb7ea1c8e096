"""Take away exactly the packet filter rules that kube-proxy and the CNI plugins made.

They keep to chains of their own (KUBE-… and CNI-…) and jump to them from the built-in ones. Chains with such
names that were there before `up` belong to somebody else and stay.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable

from tests.cluster.errors import ClusterError

OWNED_PREFIXES = ("KUBE-", "CNI-")
SAVE_COMMANDS = ("iptables-save", "ip6tables-save")

_JUMP = re.compile(r"\s(?:-j|-g|--jump|--goto) (\S+)")


def chains(saved: str) -> set[tuple[str, str]]:
    """Return (table, chain) of every chain with one of our prefixes in the output of iptables-save."""
    found, table = set(), ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":") and line[1:].startswith(OWNED_PREFIXES):
            found.add((table, line[1:].split()[0]))
    return found


def rules(saved: str) -> list[str]:
    """Return the rules and user chains, `table rule`: empty tables and counters say nothing."""
    found, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A") or (line.startswith(":") and " - " in line):
            found.append(f"{table} {line.split(' [')[0]}")
    return found


def removal(saved: str, kept: Iterable[tuple[str, str]] = ()) -> str:
    """Return the input for `iptables-restore --noflush` that removes our chains and every jump to them."""
    ours = chains(saved) - set(kept)
    script: list[str] = []
    for table in sorted({table for table, _ in ours}):
        names = {chain for owner, chain in ours if owner == table}
        script.append(f"*{table}")
        script += [f":{name} - [0:0]" for name in sorted(names)]  # Declaring an existing chain empties it.
        script += [f"-D{rule[2:]}" for rule in _rules_of(saved, table) if _jumps_into(rule, names)]
        script += [f"-X {name}" for name in sorted(names)]
        script.append("COMMIT")
    return "\n".join(script) + "\n" if script else ""


def _rules_of(saved: str, wanted: str) -> list[str]:
    table, found = "", []
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table == wanted and line.startswith("-A "):
            found.append(line)
    return found


def _jumps_into(rule: str, names: set[str]) -> bool:
    """Tell whether a rule outside our chains leads into one of them."""
    target = _JUMP.search(rule)
    return rule.split()[1] not in names and target is not None and target.group(1) in names


def save(command: str) -> str:
    """Return the current rules in the notation of iptables-save."""
    return subprocess.run([command], capture_output=True, text=True, check=True).stdout


def remove_ours(kept: Iterable[tuple[str, str]] = ()) -> int:
    """Remove our chains from both IP versions; return how many there were."""
    count, kept = 0, set(kept)
    for command in SAVE_COMMANDS:
        saved = save(command)
        script = removal(saved, kept)
        if not script:
            continue
        restore = [command.replace("-save", "-restore"), "--noflush"]
        result = subprocess.run(restore, input=script, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            msg = f"{' '.join(restore)} failed: {result.stderr.strip()}"
            raise ClusterError(msg)
        count += len(chains(saved) - kept)
    return count


def tables() -> list[str]:
    """Return the tables that exist, as `nft` names them; iptables makes one on its first rule and keeps it."""
    if shutil.which("nft") is None:
        return []
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return sorted(line.removeprefix("table ").strip() for line in listed.stdout.splitlines())


def remove_empty_tables(kept: Iterable[str]) -> list[str]:
    """Remove tables that were not there before and hold no rule and no chain but the built-in ones."""
    saved = {"ip": save("iptables-save"), "ip6": save("ip6tables-save")}
    removed = []
    for table in sorted(set(tables()) - set(kept)):
        family, _, name = table.partition(" ")
        in_use = family not in saved or any(rule.startswith(f"{name} ") for rule in rules(saved[family]))
        if not in_use:
            subprocess.run(["nft", "delete", "table", family, name], capture_output=True, check=False)
            removed.append(table)
    return removed

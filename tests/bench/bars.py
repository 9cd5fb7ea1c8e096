"""Bars, and the machine and versions that figures belong to."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("numpy", "torch", "transformers", "accelerate", "tokenizers", "tiktoken", "datasets", "pyarrow")


def bar_line(name: str, value: float, goal: float, *, below: bool = False) -> str:
    """`bar <name> <value> <goal> pass|short`; a value that is no number is short."""
    passed = value <= goal if below else value >= goal
    return f"bar {name} {value:.3f} {goal:g} {'pass' if passed else 'short'}"


def bar(name: str, value: float, goal: float, *, below: bool = False) -> None:
    """Prints one bar."""
    print(bar_line(name, value, goal, below=below), flush=True)


def processor(cpuinfo: str) -> str:
    """The processor's name in the text of /proc/cpuinfo."""
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, platform.machine())


def print_machine(libraries: Sequence[str] = LIBRARIES) -> None:
    """One line about the machine, one about versions."""
    name = processor(Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    print(
        f"machine: {os.cpu_count()} cores, {name}, {memory:.0f} GiB, {platform.system()} {platform.release()}; load {load:.1f}"
    )
    print(f"versions: Python {platform.python_version()}, {', '.join(f'{lib} {version(lib)}' for lib in libraries)}")

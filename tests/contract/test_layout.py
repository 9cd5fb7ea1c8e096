"""The shape of the source tree: seams, cycles, import depth and folder size, read from the imports themselves."""

from collections import Counter
from functools import cache
from pathlib import Path

import grimp
import pytest

from hatchery_api.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("hatchery_api", "hatchery_operator", "hatchery_cli", "hatchery_jobs")

OPEN = frozenset({*PACKAGES, "hatchery_api.resources", "hatchery_operator.domain", "hatchery_jobs.pretrain"})
"""Packages whose modules are their seam. Of every other package, outsiders import only what its `__init__` exports."""

LONGEST_CHAIN = 8
"""Modules in the longest chain of imports within the operator."""

MOST_MODULES = 18
"""Modules in one folder, `__init__` left out."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def seam_of(module: str, importer: str, packages: set[str]) -> str | None:
    """The outermost package around a module that the importer is outside of and that has a seam of its own."""
    parts = module.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if package in packages and package not in OPEN and not f"{importer}.".startswith(f"{package}."):
            return package
    return None


def test_a_package_is_imported_only_by_its_seam(graph: grimp.ImportGraph) -> None:
    packages = {module for module in graph.modules if graph.find_children(module)}
    crossed = [
        f"{importer} imports {module}; import it from {seam}"
        for importer in sorted(graph.modules)
        for module in sorted(graph.find_modules_directly_imported_by(importer))
        if (seam := seam_of(module, importer, packages)) is not None
    ]
    assert crossed == []


def test_every_package_says_what_it_is_for_and_who_may_import_it() -> None:
    silent = [
        str(init.relative_to(ROOT))
        for package in ("operator", "jobs")
        for init in (ROOT / package).rglob("__init__.py")
        if "import" not in init.read_text().partition('"""')[2].partition('"""')[0].lower()
    ]
    assert silent == []


KIND_PACKAGES = frozenset(f"hatchery_jobs.{kind.package}" for kind in KINDS)


@pytest.mark.parametrize("imported", sorted(KIND_PACKAGES))
def test_nothing_in_the_jobs_imports_the_package_of_another_kind(graph: grimp.ImportGraph, imported: str) -> None:
    """Directly or through others: kinds know nothing of each other, and what they share knows no kind."""
    others = graph.find_children("hatchery_jobs") - {imported}
    chains = [
        " -> ".join(chain)
        for other in sorted(others)
        for chain in sorted(graph.find_shortest_chains(other, imported, as_packages=True))
    ]
    assert chains == []


def longest_chain(graph: grimp.ImportGraph, package: str) -> list[str]:
    """The longest chain of imports within a package.

    Raises:
        AssertionError: modules import each other in a circle.
    """
    inside = {module for module in graph.modules if f"{module}.".startswith(f"{package}.")}
    open_modules: list[str] = []

    @cache
    def below(module: str) -> tuple[str, ...]:
        assert module not in open_modules, f"a circle of imports: {' -> '.join([*open_modules, module])}"
        open_modules.append(module)
        chains = [below(other) for other in sorted(graph.find_modules_directly_imported_by(module) & inside)]
        open_modules.pop()
        return (module, *max(chains, key=len, default=()))

    return list(max((below(module) for module in sorted(inside)), key=len))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph, package: str) -> None:
    assert longest_chain(graph, package)


def test_no_chain_of_imports_in_the_operator_is_long(graph: grimp.ImportGraph) -> None:
    chain = longest_chain(graph, "hatchery_operator")
    assert len(chain) <= LONGEST_CHAIN, " -> ".join(chain)


def test_no_folder_holds_more_modules_than_one_can_take_in() -> None:
    sizes = Counter(
        str(path.parent.relative_to(ROOT))
        for package in ("operator", "jobs")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    )
    assert {folder: size for folder, size in sizes.items() if size > MOST_MODULES} == {}

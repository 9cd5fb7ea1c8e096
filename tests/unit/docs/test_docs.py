"""The documentation holds what it promises: links resolve, lines are short, examples are specs, commands exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from hatchery_api.kinds import BY_KIND
from hatchery_cli.app import app

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests").glob("*/*.md"),
        *(ROOT / "tests/data").rglob("*.md"),
    ]
)
LINE_LIMIT = 120

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
LINK = re.compile(r"\[(?:[^\]`]|`[^`]*`)*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its fenced code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(next(s for n in range(len(PAGES)) if (s := f"{slug}-{n}" if n else slug) not in found))
    return found


def broken_links(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere; pictures are not asked about."""
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@EACH_PAGE
def test_every_relative_link_and_anchor_resolves(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c\n\n[x](page.md#a-b-c) [`[y]`](#a-b) [z](absent.md) [w](https://example.org/absent)\n")
    assert list(broken_links(page)) == ["#a-b", "absent.md"]


@EACH_PAGE
def test_lines_are_short_outside_tables_and_code(page: Path) -> None:
    if page.parent == ROOT / "docs/reference":
        return  # generated
    lines = [line for line in prose(page).splitlines() if not line.lstrip().startswith("|") and line[:4] != "    "]
    assert [line for line in lines if len(line) > LINE_LIMIT] == []


def test_the_pipeline_of_the_readme_is_four_valid_resources() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    resources = list(yaml.safe_load_all(block))
    assert [resource["kind"] for resource in resources] == ["CorpusBuild", "TokenizerBuild", "PretrainRun", "EvalRun"]
    for resource in resources:
        BY_KIND[resource["kind"]].spec.model_validate(resource["spec"])


@EACH_PAGE
def test_commands_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(getattr(get_command(app), "commands"))  # noqa: B009 - a group, which its type does not say
    assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"(?:^    |`|kubectl |bin/)hatchery ([a-z]+)", text, re.MULTILINE)) <= commands

"""docs/architecture.md lists every module with the first paragraph of its docstring."""

import ast
import re
from pathlib import Path

import pytest

from pipeline.algorithms import catalogue

ROOT = Path(__file__).parents[2]
TOPS = ("tensorfleet", "consumer", "pipeline")
PACKAGES = sorted(init.parent.relative_to(ROOT) for top in TOPS for init in (ROOT / top).rglob("__init__.py"))
TREE = (ROOT / "docs/architecture.md").read_text().partition("## The tree")[2]


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_the_architecture_page_lists_every_module_with_what_it_says_it_is(package: Path) -> None:
    section = TREE.partition(f"### {package}/\n")[2].partition("###")[0]
    listed = [line for line in section.splitlines() if line.startswith("| `")]
    assert listed == [
        f"| `{module.stem}` | {_first_paragraph(module)} |"
        for module in sorted((ROOT / package).glob("*.py"))
        if module.stem != "__init__"
    ]


def _first_paragraph(module: Path) -> str:
    return (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n\n")[0].replace("\n", " ")


def test_the_algorithms_page_lists_every_algorithm() -> None:
    table = (ROOT / "docs/algorithms.md").read_text().partition("| algorithm | takes |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    listed = [name for row in rows for name in row.replace(" ", "").split(",")]
    assert sorted(listed) == sorted(catalogue())


def test_every_data_rule_names_tests_that_there_are() -> None:
    page = (ROOT / "docs/data-rules.md").read_text()
    named = re.findall(r"`([\w/]*)::(test_\w+)`", page)
    assert len(named) > 20
    module = ""
    for written, test in named:
        module = written or module
        path = ROOT / (f"{module}.py" if "/" in module else f"tests/unit/{module}.py")
        assert f"def {test}(" in path.read_text(), (path, test)


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings, and those that the page has by itself."""
    text = page.read_text()
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ +(.*)$", text, re.MULTILINE))
    return {heading.strip().replace(" ", "-") for heading in headings} | set(re.findall(r'<a id="([^"]+)"', text))

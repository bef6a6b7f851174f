"""Documentation: tables list every name, links lead somewhere, and named files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernels import OUTPUTS
from service import problems, settings
from service.codecs.base import TENSORS
from service.codecs.v2.parameters import FOREIGN, FOREIGN_PREFIX
from service.routes import OPERATIONS

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
}
# Records of decisions and changes name files of their own day.
OF_TODAY = [page for page in PAGES if page != "CHANGELOG.md" and not re.match(r"docs/adr/\d", page)]
LONGEST_README = 120  # lines

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE = re.compile(
    r"`((?:kernels|service|tests|benchmarks|deploy|docs|examples)/[\w./-]+|[A-Z]+\.md)`"
)


def rows(page: str, name: str) -> list[str]:
    """Lines of ``page`` that hold ``name`` as code."""
    return [line for line in PAGES[page].splitlines() if f"`{name}`" in line]


def anchors(page: str) -> set[str]:
    """Anchors of the headings of ``page``, as GitHub makes them."""
    headings = _HEADING.findall(re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def links(page: str) -> list[tuple[Path, str]]:
    """Target and anchor of each relative link in ``page``; the anchor may be empty."""
    found = []
    for link in _LINK.findall(_CODE.sub("", PAGES[page])):
        if ":" not in link:
            path, _, anchor = link.partition("#")
            found.append(((ROOT / page).parent / path if path else ROOT / page, anchor))
    return found


@pytest.mark.parametrize("name", settings.Settings.model_fields)
def test_every_setting_is_listed(name: str) -> None:
    assert rows("docs/settings.md", settings.variable(name))


@pytest.mark.parametrize("name", [*FOREIGN, f"{FOREIGN_PREFIX}*"])
def test_every_foreign_parameter_is_listed(name: str) -> None:
    assert rows("docs/v2.md", name)


@pytest.mark.parametrize("row", problems.TABLE.values(), ids=lambda row: row.name)
def test_every_error_is_listed_with_its_status(row: problems.Row) -> None:
    assert any(str(row.status) in line for line in rows("docs/errors.md", row.name))


def test_every_503_says_when_to_come_back() -> None:
    assert all(row.retry_after for row in problems.TABLE.values() if row.status == 503)


@pytest.mark.parametrize(
    "name",
    sorted(
        {name for operation in OPERATIONS for name in operation.options.model_fields} | {"dtype"}
    ),
)
def test_every_option_is_listed(name: str) -> None:
    assert rows("docs/options.md", name)


@pytest.mark.parametrize("name", sorted(TENSORS | {*OUTPUTS}))
def test_every_tensor_and_output_is_listed(name: str) -> None:
    assert rows("docs/options.md", name)


@pytest.mark.parametrize(
    "name", [*(operation.path for operation in OPERATIONS), "/healthz", "/readyz", "/docs"]
)
def test_readme_lists_every_route(name: str) -> None:
    assert name in PAGES["README.md"]


def test_readme_is_for_a_user_in_a_hurry() -> None:
    assert len(PAGES["README.md"].splitlines()) <= LONGEST_README


MODULES = [path for package in ("kernels", "service") for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize(
    "name", [str(path.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py"]
)
def test_every_module_has_a_line(name: str) -> None:
    assert len(rows("docs/files.md", name)) == 1


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), f"#{anchor}"


def test_every_page_is_reached_from_readme() -> None:
    reached, ahead = set[str](), ["README.md"]
    while ahead:
        page = ahead.pop()
        if page in PAGES and page not in reached:
            reached.add(page)
            ahead += [str(target.resolve().relative_to(ROOT)) for target, _ in links(page)]
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", OF_TODAY)
def test_named_files_exist(page: str) -> None:
    assert [name for name in _FILE.findall(PAGES[page]) if not (ROOT / name).exists()] == []

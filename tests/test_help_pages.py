"""The pictures of the nodes' help pages: scripts/help_pictures.py makes them."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[1] / "web" / "docs"
NODES = sorted(page.stem for page in PAGES.glob("*.md"))
MB = 1_000_000


def shown_on(node: str) -> list[tuple[str, str]]:
    """(alt text, path) of each picture on a page."""
    return re.findall(r"!\[(.*?)\]\((.*?)\)", (PAGES / f"{node}.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("node", NODES)
def test_a_page_shows_its_node(node):
    """Relative to the page, which the host and a forge's browser both understand."""
    image = pytest.importorskip("PIL.Image")
    shown = shown_on(node)
    assert f"pictures/{node}.png" in [path for _, path in shown]
    for alt, path in shown:
        assert len(alt.split()) >= 5, f"{path} is told to nobody who cannot see it"
        with image.open(PAGES / path) as picture:
            picture.load()
            assert 400 <= picture.width <= 1000


def test_no_picture_is_missing_or_left_over():
    files = {file.relative_to(PAGES).as_posix(): file.stat().st_size for file in (PAGES / "pictures").iterdir()}
    assert files.keys() == {path for node in NODES for _, path in shown_on(node)}
    assert sum(files.values()) <= 2 * MB
    assert not [node for node in NODES if "<!--" in (PAGES / f"{node}.md").read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", sorted(PAGES.glob("*/*.md")), ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_a_translated_page_shows_the_same_pictures(page):
    """By the same path as the English page, since the browser looks for them there. Every bold name is that of the English page."""
    text, english = page.read_text(encoding="utf-8"), (PAGES / f"{page.parent.name}.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((pictures/.*?)\)", text) == re.findall(r"\]\((pictures/.*?)\)", english)
    assert re.findall(r"\*\*(.*?)\*\*", text) == re.findall(r"\*\*(.*?)\*\*", english)

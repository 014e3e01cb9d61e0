"""The nodes' help pages: their pictures, which scripts/help_pictures.py makes, and their translations."""

import json
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[1] / "web" / "docs"
NODES = sorted(page.stem for page in PAGES.glob("*.md"))
LANGUAGES = ("ja", "zh")
LOCALES = {
    folder.name: json.loads((folder / "nodeDefs.json").read_text(encoding="utf-8"))
    for folder in (PAGES.parents[1] / "locales").iterdir()
}
NAMES = {part["name"] for node in LOCALES["en"].values() for kind in ("inputs", "outputs") for part in node[kind].values()}
MB = 1_000_000


def read(node: str, language: str | None = None) -> str:
    """The English page, or its translation."""
    return (PAGES / (f"{node}/{language}.md" if language else f"{node}.md")).read_text(encoding="utf-8")


def in_prose(name: str) -> str:
    """Extract Face Motion (Keypoints) is called Extract Face Motion in texts; Chinese and Japanese have brackets of their own."""
    return re.split(r" ?[(（]", name)[0]


def shown_on(node: str) -> list[tuple[str, str]]:
    """(alt text, path) of each picture on a page."""
    return re.findall(r"!\[(.*?)\]\((.*?)\)", read(node))


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
    assert not [node for node in NODES if "<!--" in read(node)]


def parts(text: str) -> dict:
    """What a page and its translation have in common: the order of its blocks, and what is not translated."""
    items = re.findall(r"^- (.*)$", text, re.MULTILINE)
    return {
        "pictures": re.findall(r"!\[.*?\]\((.*?)\)", text),
        "links": sorted(re.findall(r"(?<!!)\[[^\]]*\]\((http.*?)\)", text)),
        "blocks": [block[0] if block[0] in "#-!|1" else "text" for block in text.strip().split("\n\n")],
        "lines": len(text.splitlines()),
        "names of each item": [re.findall(r"\*\*([a-z_0-9]+)\*\*", item) for item in items],
        "names": set(re.findall(r"\*\*([a-z_0-9]+)\*\*", text)) & NAMES,
        "code": sorted(set(re.findall(r"`[^`]+`", text))),
    }


def numbers(text: str) -> set[float]:
    return set(map(float, re.findall(r"\d+(?:\.\d+)?", re.sub(r"`[^`]*`|\]\([^)]*\)", "", text))))


def test_every_node_has_a_page_in_every_language():
    assert {(page.parent.name, page.stem) for page in PAGES.glob("*/*.md")} == {(n, lang) for n in NODES for lang in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_a_translated_page_says_what_the_english_one_says(node, language):
    """The pictures by the same path, since the browser looks for them beside the English page. What is not translated shows where a
    change of the English page was not followed."""
    english, other = read(node), read(node, language)
    assert parts(other) == parts(english)
    assert numbers(english) <= numbers(other), "words such as two may be digits there"


def mentioned(text: str, names: dict) -> set[str]:
    """Ids of the pack's nodes that a page names, by their names in a language's nodeDefs.json."""
    called = {in_prose(names[node]["display_name"]): node for node in NODES}
    return {called[name] for name in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text) if name in called}


def labels(node: str, language: str) -> dict[str, set[str]]:
    """{English name of an input or output: what it is called there}; a node may have an input and an output of one name."""
    called = {}
    for kind in ("inputs", "outputs"):
        for key, part in LOCALES["en"][node][kind].items():
            name = LOCALES[language][node][kind][key]["name"]
            called.setdefault(part["name"], set()).update((name, in_prose(name)))
    return called


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_a_translated_page_uses_the_names_that_the_browser_shows(node, language):
    """Of the node in its heading, of the nodes it mentions, and in brackets those of its inputs and outputs."""
    text, shown = read(node, language), LOCALES[language]
    assert text.splitlines()[0] == f"# {shown[node]['display_name']}"

    assert mentioned(text, shown) == mentioned(read(node), LOCALES["en"])
    for name, label in re.findall(r"\*\*([a-z_0-9]+)\*\*（([^；;、，,。（）]+)", text):
        assert label in labels(node, language).get(name, {label}), f"{name} is not called {label} on the node"

"""docs/troubleshooting.md quotes what the pack says; what it no longer says has no place there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = [
    ROOT / "__init__.py",
    ROOT / "install.py",
    ROOT / "scripts" / "environment.py",
    *(ROOT / "nodes").rglob("*.py"),
    *(ROOT / "realportrait_core").rglob("*.py"),
]
TELLING = 16  # letters that a text says by itself, whatever is put into it
PLACE = re.compile(r"%[.\d]*[sdfgr]|\{[^}]*\}")  # of a logging format, of str.format


def quotes() -> list[str]:
    """The quotations of the page, each on one line."""
    blocks = re.findall(r"(?:^> .*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [" ".join(line.removeprefix("> ") for line in block.splitlines()) for block in blocks]


@cache
def said() -> list[re.Pattern]:
    """Every text of the sources as a pattern, anything standing for what is put in."""
    patterns = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            if not all(isinstance(part, (ast.Constant, ast.FormattedValue)) for part in parts):
                continue
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            if sum(letter.isalpha() for text in texts if isinstance(text, str) for letter in text) < TELLING:
                continue
            pattern = "".join(".+" if text is None else fixed(text) for text in texts)
            patterns.append(re.sub(r"(?:\.\+)+", ".+", pattern))  # several in a row would take for ever to match
    return [re.compile(pattern.removeprefix(r"\ ").removesuffix(r"\ ")) for pattern in patterns]  # of a longer report


def fixed(text: str) -> str:
    return ".+".join(re.escape(part) for part in PLACE.split(text))


def test_there_are_quotations():
    assert len(quotes()) > 40


@pytest.mark.parametrize("quote", quotes(), ids=lambda quote: quote[:40])
def test_the_pack_says_what_is_quoted(quote):
    assert any(pattern.fullmatch(quote) for pattern in said())

"""locales/: the English that the host serves is that of the nodes, and the translations say the same things.

WRITE_LOCALES=1 writes the English file from the nodes: `WRITE_LOCALES=1 python scripts/test.py -k locales`.
"""

import json
import os
import re
from pathlib import Path

import pytest

LOCALES = Path(__file__).resolve().parents[2] / "locales"
LANGUAGES = ["zh", "ja"]
PARTS = {"display_name", "description", "name", "tooltip"}

# What a translation takes over as it stands: numbers, words of a menu in quotes, the names of sockets, paths and file names.
KEPT = re.compile(r"\d+(?:\.\d+)?|(?<!\w)'[^']+'(?!\w)|\b[A-Z]{3,}\b|\.?\b\w+(?:[/_]\w+)+\b|\.safetensors")


@pytest.fixture(scope="module")
def english(host) -> dict:
    """nodeDefs.json of the schemas."""
    nodes = {name: node for name, node in host.NODE_CLASS_MAPPINGS.items() if name.startswith("RealPortrait")}
    return {name: node_def(node.GET_SCHEMA()) for name, node in sorted(nodes.items())}


def node_def(schema) -> dict:
    """One node, by the keys under which the browser looks for its words."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {part.id: {"name": part.display_name or part.id, "tooltip": part.tooltip} for part in schema.inputs},
        "outputs": {str(i): {"name": part.display_name, "tooltip": part.tooltip} for i, part in enumerate(schema.outputs)},
    }


def read(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def texts(tree: dict, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """{("RealPortraitSampler", "inputs", "steps", "tooltip"): text, ...}."""
    flat = {}
    for key, value in tree.items():
        flat |= texts(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return flat


def in_prose(name: str) -> str:
    """Extract Face Motion (Keypoints) is called Extract Face Motion in texts; Chinese and Japanese have brackets of their own."""
    return re.split(r" ?[(（]", name)[0]


def mentions(text: str, names: dict[str, str]) -> list[str]:
    """Which of the names stand in the text, longest first: one that is a part of a longer one is not counted there."""
    found = []
    for name in sorted(names, key=len, reverse=True):
        if name in text:
            found.append(name)
            text = text.replace(name, " ")
    return found


def test_english_is_what_the_nodes_say(english):
    if os.environ.get("WRITE_LOCALES"):
        (LOCALES / "en" / "nodeDefs.json").write_text(
            json.dumps(english, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n"
        )
    assert read("en") == english, "locales/en is stale: WRITE_LOCALES=1 python scripts/test.py -k locales writes it"
    assert {key[-1] for key in texts(english)} == PARTS and all(texts(english).values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated(language):
    wanted, given = texts(read("en")), texts(read(language))
    assert sorted(wanted.keys() - given.keys()) == [] and sorted(given.keys() - wanted.keys()) == []
    assert list(given) == list(wanted), "other order than the English file"
    same = [key for key, text in given.items() if not text.strip() or text == wanted[key]]
    assert not same


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_menu_words_and_file_names_are_kept(language):
    """An input that is named in a text has the name that the browser shows in that language."""
    english, other = read("en"), read(language)
    lost = []
    for key, text in texts(english).items():
        if key[-1] not in ("tooltip", "description"):
            continue
        translated = texts(other)[key]
        inputs = {name: shown["name"] for name, shown in other[key[0]]["inputs"].items()}
        lost += [(key, part) for part in KEPT.findall(text) if inputs.get(part.strip("'"), part) not in translated]
    assert not lost


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_are_called_by_the_names_they_have_there(language):
    english, other = read("en"), read(language)
    names = {in_prose(node["display_name"]): in_prose(other[node_id]["display_name"]) for node_id, node in english.items()}
    assert len(set(names.values())) == len(names)
    wrong = [
        (key, names[name])
        for key, text in texts(english).items()
        for name in mentions(text, names)
        if names[name] not in texts(other)[key]
    ]
    assert not wrong

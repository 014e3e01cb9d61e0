"""locales/: the English that the host serves is that of the nodes, and the translations say the same things.

WRITE_LOCALES=1 writes the English file from the nodes: `WRITE_LOCALES=1 python scripts/test.py -k locales`.
"""

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCALES = ROOT / "locales"
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
        "inputs": {part.id: input_def(part) for part in schema.inputs},
        "outputs": {str(i): {"name": part.display_name, "tooltip": part.tooltip} for i, part in enumerate(schema.outputs)},
    }


def input_def(part) -> dict:
    """An input, with the words of its menu, for web/js/language.js; files, precisions and the host's own lists keep their names."""
    named = {"name": part.display_name or part.id, "tooltip": part.tooltip}
    if part.id in ("sampler_name", "scheduler"):
        return named
    words = [word for word in getattr(part, "options", None) or () if not re.fullmatch(r".+\.\w+( \[output\])?|(fp|bf)\d.*", word)]
    return named | ({"options": {word: word for word in words}} if words else {})


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
    assert {key[-1] for key in texts(english) if "options" not in key} == PARTS and all(texts(english).values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated(language):
    wanted, given = texts(read("en")), texts(read(language))
    assert sorted(wanted.keys() - given.keys()) == [] and sorted(given.keys() - wanted.keys()) == []
    assert list(given) == list(wanted), "other order than the English file"
    same = [key for key, text in given.items() if not text.strip() or text == wanted[key]]
    assert not same


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_menu_names_the_english_word_too(language):
    """Tooltips, help pages and workflows know it by that."""
    menus = {key: label for key, label in texts(read(language)).items() if "options" in key}
    assert menus and not [key for key, label in menus.items() if not label.endswith(f"（{key[-1].strip('()')}）")]


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


@pytest.mark.parametrize("language", LANGUAGES)
def test_titles_in_the_workflows_are_translated(language):
    """Of groups and nodes; a group's number stays."""
    graphs = [json.loads(file.read_text(encoding="utf-8")) for file in (ROOT / "workflows").glob("*.json")]
    titles = {item["title"] for graph in graphs for item in (*graph["groups"], *graph["nodes"]) if item.get("title")}
    translated = json.loads((LOCALES / language / "main.json").read_text(encoding="utf-8"))["realportrait"]["titles"]
    assert titles and sorted({re.sub(r"^\d+ +", "", title) for title in titles} - translated.keys()) == []

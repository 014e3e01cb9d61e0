"""The real server hands the pack's words to the browser."""

import json
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCALES = ROOT / "locales"


def test_the_server_offers_every_language(server):
    with urllib.request.urlopen(f"{server.url}/i18n", timeout=60) as answer:
        served = json.load(answer)
    languages = sorted(folder.name for folder in LOCALES.iterdir())
    assert languages == ["en", "ja", "zh"]
    for language in languages:
        ours = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
        nodes = served[language]["nodeDefs"]
        assert {name: nodes[name] for name in ours} == ours


def test_the_server_offers_a_help_page_where_the_browser_looks_for_it(server):
    """/extensions/PACK/docs/NODE/LANGUAGE.md, else /extensions/PACK/docs/NODE.md."""
    pages = sorted((ROOT / "web" / "docs").glob("*/*.md"))
    assert {page.stem for page in pages} == {"ja", "zh"}
    for page in pages:
        assert page.parent.with_suffix(".md").is_file(), f"no English page for {page}"
        with urllib.request.urlopen(
            f"{server.url}/extensions/realportrait/docs/{page.parent.name}/{page.name}", timeout=60
        ) as answer:
            assert answer.read() == page.read_bytes()

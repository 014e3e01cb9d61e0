"""The real server hands the pack's words to the browser."""

import json
import urllib.request
from pathlib import Path

LOCALES = Path(__file__).resolve().parents[2] / "locales"


def test_the_server_offers_every_language(server):
    with urllib.request.urlopen(f"{server.url}/i18n", timeout=60) as answer:
        served = json.load(answer)
    languages = sorted(folder.name for folder in LOCALES.iterdir())
    assert languages == ["en", "ja", "zh"]
    for language in languages:
        ours = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
        nodes = served[language]["nodeDefs"]
        assert {name: nodes[name] for name in ours} == ours

"""What newer hosts know of a node, on a stand-in for one: the newest host that runs in these tests is 0.3.75."""

from dataclasses import dataclass, field

import pytest

SEARCHED = ["live portrait", "liveportrait", "talking head", "face animation", "reenactment", "lip sync", "video driven portrait"]


@pytest.fixture
def newer(host, pack, monkeypatch):
    """The schemas of the pack's nodes as a host makes them whose Schema and Inputs take two arguments more: {node id: schema}."""
    from comfy_api.latest import io

    @dataclass
    class Schema(io.Schema):
        search_aliases: list[str] = field(default_factory=list)

    def with_advanced(kind):
        class Input(kind.Input):
            def __init__(self, *given, advanced: bool = False, **named):
                super().__init__(*given, **named)
                self.advanced = advanced

        return Input

    monkeypatch.setattr(io, "Schema", Schema)
    for kind in pack("nodes.host.newer").WIDGETS:
        monkeypatch.setattr(kind, "Input", with_advanced(kind))
    ours = {name: node for name, node in host.NODE_CLASS_MAPPINGS.items() if name.startswith("RealPortrait")}
    return {name: node.define_schema() for name, node in ours.items()}


def advanced(schema) -> list[str]:
    return [part.id for part in schema.inputs if getattr(part, "advanced", False)]


@pytest.mark.parametrize("word", SEARCHED)
def test_a_search_finds_a_node(newer, word):
    assert [name for name, schema in newer.items() if word in schema.search_aliases]


def test_every_node_has_aliases_that_are_not_its_name(newer):
    for name, schema in newer.items():
        assert schema.search_aliases and schema.display_name.lower() not in schema.search_aliases, name


def test_the_everyday_inputs_of_motion_come_first(newer):
    """The widgets of saved workflows are told by their position: the order stays, and what is folded away is at its end."""
    schema = newer["RealPortraitMotionMaps"]
    widgets = [part.id for part in schema.inputs if hasattr(part, "advanced")]
    assert widgets[:5] == ["mode", "pose_gain", "expression_gain", "neutral_frame", "framing"]
    assert widgets[5:] == advanced(schema)


def test_what_is_folded_away_need_not_be_set(newer):
    folded = {name: advanced(schema) for name, schema in newer.items()}
    assert sum(map(len, folded.values())) > 15
    for name, schema in newer.items():
        assert [part.id for part in schema.inputs if part.id in folded[name] and part.default is None] == []


def test_an_older_host_is_given_neither(host, pack, monkeypatch):
    """A dataclass and a class that do not take them would raise TypeError, and the host would load no node."""
    from comfy_api.latest import io

    class Schema:
        def __init__(self, node_id: str):
            pass

    class Input:
        def __init__(self, id: str):
            pass

    newer = pack("nodes.host.newer")
    monkeypatch.setattr(io, "Schema", Schema)
    monkeypatch.setattr(io.Float, "Input", Input)
    assert newer.aliases("talking head") == newer.advanced() == {}

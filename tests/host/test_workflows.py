"""The workflow files against the nodes' own descriptions. That they run is tested on the real server."""

import asyncio
import json
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
UI = sorted(WORKFLOWS.glob("*.json"))
API = sorted((WORKFLOWS / "api").glob("*.json"))
TWO_FACES = WORKFLOWS / "api" / "animate_two_faces.json"
SAVED_MOTION = WORKFLOWS / "api" / "animate_saved_motion.json"
PAPER = WORKFLOWS / "api" / "animate_portrait_paper.json"
PORTRAIT_VIDEO = WORKFLOWS / "api" / "portrait_video.json"
SLIDERS = WORKFLOWS / "api" / "expression_sliders.json"
SIMPLE = WORKFLOWS / "api" / "animate_portrait_simple.json"
LIVEPORTRAIT = WORKFLOWS / "api" / "animate_liveportrait.json"
LONG = WORKFLOWS / "api" / "animate_long_video.json"
EXTRAS = ("nodes_custom_sampler.py", "nodes_video.py", "nodes_preview_any.py", "nodes_latent.py", "nodes_images.py")
NOTES = {"Note", "MarkdownNote"}  # nodes that only the browser knows


@pytest.fixture(scope="module")
def describe(host):
    """describe("KSampler") -> ({input: [type, options]}, names of the optional ones, output types)."""
    for name in EXTRAS:
        file = Path(host.__file__).parent / "comfy_extras" / name
        assert asyncio.run(host.load_custom_node(str(file), module_parent="comfy_extras"))

    def run(class_type: str):
        node = host.NODE_CLASS_MAPPINGS[class_type]
        given, outputs = node.INPUT_TYPES(), list(node.RETURN_TYPES)
        optional = given.get("optional", {})
        entries = given["required"] | optional
        return {name: (entry[0], (*entry, {})[1]) for name, entry in entries.items()}, set(optional), outputs

    return run


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def is_widget(kind) -> bool:
    return isinstance(kind, list) or kind in {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_api_workflow_fits_the_nodes(path, describe):
    workflow = read(path)
    for node, entry in workflow.items():
        described, optional, _ = describe(entry["class_type"])
        assert entry["_meta"]["title"]
        assert set(described) - optional <= set(entry["inputs"]) <= set(described), node
        for name, value in entry["inputs"].items():
            kind, options = described[name]
            if isinstance(value, list):
                source, slot = value
                found = describe(workflow[source]["class_type"])[2][slot]
                assert found in kind.split(",") or kind == "*", f"{node}.{name} wants {kind}, {source} gives {found}"
            elif kind == "COMBO" and name not in ("weights", "file"):
                assert value in options["options"], f"{node}.{name}"
            elif kind in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value)


@pytest.mark.parametrize(
    "path", [path for path in API if path not in (TWO_FACES, PAPER, PORTRAIT_VIDEO, SLIDERS, SIMPLE)], ids=lambda path: path.stem
)
def test_api_workflow_takes_what_the_readme_says(path):
    """The examples, the driving video's frame rate and sound, and the weights of the pack."""
    by_type = {}
    for entry in read(path).values():
        by_type.setdefault(entry["class_type"], []).append(entry["inputs"])
    assert by_type["RealPortraitLoadPortrait"][0]["image"] == "example: portrait.png"
    driving = "RealPortraitStreamDrivingVideo" if path == LONG else "RealPortraitLoadDrivingVideo"
    assert by_type[driving][0]["file"] == "example: driving.mp4"
    assert by_type["RealPortraitLoadVid2Vid"][0]["weights"] == "realportrait_mini_vid2vid.safetensors"
    if path != LIVEPORTRAIT:
        assert by_type["RealPortraitLoadModel"][0]["weights"] == "realportrait_mini.safetensors"
        assert by_type["VAELoader"][0]["vae_name"] == "realportrait_mini_vae.safetensors"
    if path not in (SAVED_MOTION, LONG):
        (load,) = (node for node, entry in read(path).items() if entry["class_type"] == "RealPortraitLoadDrivingVideo")
        assert by_type["CreateVideo"][0]["fps"] == [load, 2] and by_type["CreateVideo"][0]["audio"] == [load, 1]


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_a_first_click_needs_no_file_in_the_input_folder(path, pack):
    """Every file that a workflow loads comes with the pack, and lies where its entry of the menu says."""
    media = pack("nodes.host.media")
    offered = {"image": media.PICTURES, "file": media.VIDEOS | media.MOTIONS}
    entries = list(read(path).values())
    assert not {"LoadImage", "LoadVideo", "LoadAudio"} & {entry["class_type"] for entry in entries}
    named = [(name, entry["inputs"][name]) for entry in entries for name in offered if isinstance(entry["inputs"].get(name), str)]
    assert named and all(offered[name][value].is_file() for name, value in named)


def test_the_simple_workflow_is_one_node_of_ours():
    """Between those that load and save, with the examples and the weights of the quick start."""
    by_type = {entry["class_type"]: entry["inputs"] for entry in read(SIMPLE).values()}
    assert set(by_type) == {"RealPortraitLoadPortrait", "RealPortraitLoadDrivingVideo", "RealPortraitAnimate", "SaveVideo"}
    assert by_type["RealPortraitLoadPortrait"]["image"] == "example: portrait.png"
    assert by_type["RealPortraitLoadDrivingVideo"]["file"] == "example: driving.mp4"
    ours = by_type["RealPortraitAnimate"]
    assert (ours["weights"], ours["vid2vid_weights"]) == ("realportrait_mini.safetensors", "realportrait_mini_vid2vid.safetensors")


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_no_wire_brings_what_the_motion_holds(path):
    """The portrait goes to what extracts from it, to previews and comparisons; and a picture to paste into is another face's."""
    workflow = read(path)
    for entry in workflow.values():
        assert "portrait" not in entry["inputs"] or "motion" not in entry["inputs"], entry["class_type"]
        if entry["class_type"] == "RealPortraitPasteBack" and "picture" in entry["inputs"]:
            assert workflow[entry["inputs"]["picture"][0]]["class_type"] == "RealPortraitPasteBack"


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_the_neutral_frame_is_chosen(path):
    """As by default: the first frame of a driving video is often a grimace."""
    maps = [entry["inputs"] for entry in read(path).values() if entry["class_type"] == "RealPortraitMotionMaps"]
    assert {given["neutral_frame"] for given in maps} <= {-1}


def test_the_papers_workflow_samples_as_the_paper():
    """50 steps of IDDPM without guidance, by weights that a user brings: none of them is the pack's."""
    workflow = read(PAPER)
    by_type = {entry["class_type"]: entry["inputs"] for entry in workflow.values()}
    assert by_type["RealPortraitSigmas"]["steps"] == 50 and by_type["CFGGuider"]["cfg"] == 1.0
    chosen = by_type["SamplerCustomAdvanced"]
    sources = {name: workflow[chosen[name][0]]["class_type"] for name in ("sampler", "sigmas", "latent_image")}
    assert sources == {
        "sampler": "RealPortraitIDDPMSampler",
        "sigmas": "RealPortraitSigmas",
        "latent_image": "RealPortraitConditioning",
    }
    assert by_type["RealPortraitConditioning"]["frames"] == 16
    files = by_type["RealPortraitLoadModel"], by_type["RealPortraitLoadVid2Vid"], by_type["VAELoader"]
    assert not any("mini" in str(inputs) for inputs in files)


def test_liveportrait_is_face_vid2vid_alone():
    """No transformer, sampler or VAE; the face is pasted into the motion's own portrait, at a size that can be saved."""
    workflow = read(LIVEPORTRAIT)
    ours = sorted(entry["class_type"] for entry in workflow.values() if entry["class_type"].startswith("RealPortrait"))
    chain = ("ExtractKeypoints", "LoadDrivingVideo", "LoadPortrait", "LoadVid2Vid", "MotionMaps", "RenderVid2Vid", "Stitch")
    assert ours == [f"RealPortrait{name}" for name in chain]
    (render,) = (entry["inputs"] for entry in workflow.values() if entry["class_type"] == "RealPortraitRenderVid2Vid")
    assert render["even_size"] and render["result"] == "portrait" and "portrait" not in render
    (maps,) = (entry["inputs"] for entry in workflow.values() if entry["class_type"] == "RealPortraitMotionMaps")
    assert maps["vid2vid"] == render["vid2vid"] and maps["neutral_frame"] == -1
    (stitch,) = (entry["inputs"] for entry in workflow.values() if entry["class_type"] == "RealPortraitStitch")
    assert stitch["stitching"] == [render["vid2vid"][0], 2] and stitch["hold_shoulders"]


def test_a_long_video_is_made_by_one_node():
    """From a VIDEO that stays in its file to Save Video; its report is shown."""
    workflow = read(LONG)
    by_type = {entry["class_type"]: entry["inputs"] for entry in workflow.values()}
    long = by_type["RealPortraitAnimateLong"]
    sources = {name: workflow[link[0]]["class_type"] for name, link in long.items() if isinstance(link, list)}
    assert sources == {
        "portrait": "RealPortraitLoadPortrait",
        "driving_video": "RealPortraitStreamDrivingVideo",
        "vid2vid": "RealPortraitLoadVid2Vid",
        "model": "RealPortraitLoadModel",
        "vae": "VAELoader",
    }
    assert workflow[by_type["SaveVideo"]["video"][0]]["inputs"] is workflow[by_type["PreviewAny"]["source"][0]]["inputs"] is long


def test_two_faces_move_by_two_driving_videos_at_one_rate():
    """Each face by its own chain from the one picture; the second is pasted into the frames of the first."""
    workflow = read(TWO_FACES)

    def all_of(class_type):
        return {node: entry["inputs"] for node, entry in workflow.items() if entry["class_type"] == class_type}

    (picture,) = all_of("RealPortraitLoadPortrait")
    loads = all_of("RealPortraitLoadDrivingVideo")
    assert workflow[picture]["inputs"]["image"] == "example: two_faces.jpg" and len({given["fps"] for given in loads.values()}) == 1
    extracts = all_of("RealPortraitExtractKeypoints")
    assert [given["portrait_face"] for given in extracts.values()] == ["1st from left", "2nd from left"]
    assert {given["driver"][0] for given in extracts.values()} == set(loads)
    (first, below), (_, above) = all_of("RealPortraitPasteBack").items()
    assert "picture" not in below and above["picture"] == [first, 0]
    assert {given["portrait"][0] for given in extracts.values()} == {picture}
    edits = all_of("RealPortraitEditMotion")
    assert [given["mirror"] for given in edits.values()] == [False, True]  # so that one example does for both
    for pasted, extract, edit in zip((below, above), extracts, edits):
        sampler = workflow[workflow[pasted["frames"][0]]["inputs"]["samples"][0]]["inputs"]
        assert sampler["motion"] == pasted["motion"]
        assert workflow[pasted["motion"][0]]["inputs"]["keypoints"] == [edit, 0] and edits[edit]["keypoints"] == [extract, 0]


def test_a_saved_motion_is_another_graphs_input():
    """One row writes the file, the other reads it: no link between them, and the frame rate is the file's."""
    workflow = read(SAVED_MOTION)
    kinds = {entry["class_type"]: node for node, entry in workflow.items() if entry["class_type"] != "PreviewAny"}

    def before(node) -> set[str]:
        """The types of all nodes that a node depends on."""
        sources = [value[0] for value in workflow[node]["inputs"].values() if isinstance(value, list)]
        return {workflow[source]["class_type"] for source in sources}.union(*map(before, sources))

    assert {"RealPortraitLoadDrivingVideo", "RealPortraitExtractKeypoints"} <= before(kinds["RealPortraitSaveMotion"])
    without = {"RealPortraitLoadDrivingVideo", "RealPortraitExtractKeypoints", "RealPortraitSaveMotion"}
    assert not without & before(kinds["SaveVideo"])
    assert workflow[kinds["CreateVideo"]]["inputs"]["fps"] == [kinds["RealPortraitLoadMotion"], 2]


def test_a_portrait_video_gets_the_lips_and_the_sound_of_the_driving_video():
    """Both videos at the portrait's frame rate; of the motion the mouth alone."""
    workflow = read(PORTRAIT_VIDEO)
    by_type = {entry["class_type"]: entry["inputs"] for entry in workflow.values()}
    extract, video = by_type["RealPortraitExtractKeypoints"], by_type["CreateVideo"]
    portrait, driver = (workflow[extract[name][0]] for name in ("portrait", "driver"))
    assert portrait["class_type"] == driver["class_type"] == "RealPortraitLoadDrivingVideo" and portrait is not driver
    assert driver["inputs"]["fps"] == video["fps"] == [extract["portrait"][0], 2] and video["audio"] == [extract["driver"][0], 1]
    assert (
        by_type["RealPortraitMotionMaps"] | dict(pose_gain=0.0, eye_gain=0.0, rest_gain=0.0, mouth_gain=1.0)
        == (by_type["RealPortraitMotionMaps"])
    )
    assert workflow[by_type["CreateVideo"]["images"][0]]["class_type"] == "RealPortraitRenderVid2Vid"


def test_the_sliders_picture_is_saved_and_goes_to_realportrait():
    workflow = read(SLIDERS)
    by_type = {entry["class_type"]: (node, entry["inputs"]) for node, entry in workflow.items()}
    node, sliders = by_type["RealPortraitEditExpression"]
    assert by_type["SaveImage"][1]["images"] == [node, 0] and by_type["RealPortraitSampler"][1]["motion"] == [node, 2]
    assert sliders["live_preview"]


def test_every_workflow_is_there_twice_and_has_its_picture():
    """The browser asks for NAME.jpg; scripts/thumbnails.py makes it of the workflow's result; PAPER has no weights for one."""
    assert [path.name for path in UI] == [path.name for path in API] and len(UI) >= 8
    assert sorted(path.stem for path in WORKFLOWS.glob("*.jpg")) == [path.stem for path in UI if path.name != PAPER.name]
    for path in WORKFLOWS.glob("*.jpg"):
        with Image.open(path) as picture:
            assert picture.height == 256 <= picture.width <= 1024


@pytest.mark.parametrize("path", UI, ids=lambda path: path.stem)
def test_the_browsers_workflow_is_the_api_workflow(path, describe):
    """Widgets are told by their position, so a new or moved input would silently put values into others."""
    workflow = read(path)
    links = {link[0]: link for link in workflow["links"]}
    found = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        described, _, _ = describe(node["type"])
        sockets = {entry["name"]: entry for entry in node["inputs"]}
        values = iter(node["widgets_values"])
        inputs = {}
        for name, (kind, options) in described.items():
            if is_widget(kind):
                inputs[name] = next(values)
                if options.get("control_after_generate"):
                    assert next(values) in ("fixed", "randomize", "increment", "decrement")
            if sockets.get(name, {}).get("link"):
                _, source, slot, _, _, _ = links[sockets[name]["link"]]
                inputs[name] = [str(source), slot]
        buttons = [options for _, options in described.values() if options.get("image_upload") or options.get("video_upload")]
        assert list(values) == ["image"] * len(buttons), node["type"]  # the browser puts the button below the other widgets
        found[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    expected = {
        node: {"class_type": entry["class_type"], "inputs": entry["inputs"]}
        for node, entry in read(WORKFLOWS / "api" / path.name).items()
    }
    assert found == expected


@pytest.mark.parametrize("path", UI, ids=lambda path: path.stem)
def test_the_browsers_workflow_holds_together(path, describe):
    """Both ends of every link name it, with the types of their sockets; every socket of a node is there."""
    workflow = read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"]) and max(nodes) == workflow["last_node_id"]
    links = {link[0]: link for link in workflow["links"]}
    assert len(links) == len(workflow["links"]) and max(links) == workflow["last_link_id"]
    for link, source, slot, target, socket, kind in workflow["links"]:
        output, given = nodes[source]["outputs"][slot], nodes[target]["inputs"][socket]
        assert link in output["links"] and given["link"] == link
        assert kind == output["type"] and given["type"] in (kind, "*")
    outgoing = [link for node in nodes.values() for output in node["outputs"] for link in output["links"] or []]
    incoming = [given["link"] for node in nodes.values() for given in node["inputs"] if given["link"]]
    assert sorted(outgoing) == sorted(incoming) == sorted(links)
    for node in nodes.values():
        if node["type"] not in NOTES:
            described, _, outputs = describe(node["type"])
            plain = [name for name, (kind, _) in described.items() if not is_widget(kind)]
            assert [given["name"] for given in node["inputs"] if "widget" not in given] == plain, node["type"]
            assert [output["type"] for output in node["outputs"]] == outputs, node["type"]


@pytest.mark.parametrize("path", UI, ids=lambda path: path.stem)
def test_the_browsers_workflow_can_be_read(path):
    """No node lies on another, each lies in one group, links lead to the right or down a column, notes say what to do."""
    workflow = read(path)
    title = 30  # px above a node's position
    places = {node["id"]: node["pos"] + node["size"] for node in workflow["nodes"]}
    boxes = {node: (x, y - title, x + w, y + h) for node, (x, y, w, h) in places.items()}
    areas = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in workflow["groups"])]

    def apart(a, b) -> bool:
        return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]

    for a, b in [*combinations(boxes.values(), 2), *combinations(areas, 2)]:
        assert apart(a, b), (a, b)
    for node in workflow["nodes"]:
        box = boxes[node["id"]]
        around = [area for area in areas if not apart(area, box)]
        if node["type"] in NOTES:
            assert around == [], node["title"]
        else:
            ((left, top, right, bottom),) = around
            assert left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom, node["type"]
    for _, source, _, target, _, _ in workflow["links"]:
        a, b = boxes[source], boxes[target]
        assert a[2] <= b[0] or (a[0] == b[0] and a[3] <= b[1]), (source, target)
    assert all(group["title"] for group in workflow["groups"])
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] in NOTES]
    assert 1 <= len(notes) <= 2 and "**Run**" in notes[0]

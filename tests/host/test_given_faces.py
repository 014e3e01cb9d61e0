"""Faces of other nodes at Extract Face Motion: values of the host's BOUNDING_BOX and FACE_LANDMARKS."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from refusal import refused

WITHOUT_BOX = {**tiny.EXTRACTION, "portrait_box": "", "driver_box": ""}
PORTRAIT_BOX = {"x": 40, "y": 40, "width": 80, "height": 90}
DRIVING_BOX = {"x": np.float32(30), "y": 30.0, "width": 60, "height": 70, "label": "face", "score": 0.9}
SIZE, DRIVING_SIZE = (160, 150), (120, 110)  # height, width
FRAMES = 4


@pytest.fixture(scope="module")
def vid2vid(host, pack):
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.vid2vid_file(pack, folder / "given.safetensors")
    return host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"].execute(weights="given.safetensors").result[0]


@pytest.fixture
def extract(run_node, vid2vid):
    generator = torch.Generator().manual_seed(3)
    portrait = torch.rand(1, *SIZE, 3, generator=generator)
    driver = torch.rand(FRAMES, *DRIVING_SIZE, 3, generator=generator)

    def run(**given):
        inputs = {"vid2vid": vid2vid, "portrait": portrait, "driver": driver, **WITHOUT_BOX, **given}
        return run_node("RealPortraitExtractKeypoints", **inputs)

    return run


def moved(box: dict, x: float, y: float = 0.0) -> dict:
    return {**box, "x": box["x"] + x, "y": box["y"] + y}


def face_mesh(x: float, y: float, side: float, shape: tuple[int, int], frames: int = 1) -> dict:
    """FACE_LANDMARKS of a face `side` px wide at x, y in pictures of a height and width `shape`."""
    points = np.random.default_rng(0).uniform(0.1, 0.9, (478, 2)).astype(np.float32)
    for index, at in {468: (0.3, 0.35), 473: (0.7, 0.35), 4: (0.5, 0.55), 61: (0.35, 0.75), 291: (0.65, 0.75)}.items():
        points[index] = at
    face = {"landmarks_xy": points * side + [x, y], "bbox_xyxy": np.array([x, y, x + side, y + side]), "score": 0.9}
    return {"frames": [[face]] * frames, "image_size": shape, "connection_sets": {}}


def test_the_sockets_take_boxes_and_landmarks_and_come_last(host):
    inputs = host.NODE_CLASS_MAPPINGS["RealPortraitExtractKeypoints"].GET_NODE_INFO_V1()["input"]["optional"]
    assert [*inputs][-2:] == ["portrait_boxes", "driving_boxes"]
    assert inputs["portrait_boxes"][0] == inputs["driving_boxes"][0] == "BOUNDING_BOX,FACE_LANDMARKS"


@pytest.mark.parametrize("socket, fits", [("BOUNDING_BOX", True), ("FACE_LANDMARKS", True), ("MASK", False)])
def test_the_host_connects_such_nodes_alone(host, vid2vid, monkeypatch, socket, fits):
    """By the host's own check of a whole prompt, with a node that finds faces among its nodes."""
    import execution
    from comfy_api.latest import io

    class FindFaces(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="FindFaces", inputs=[io.Image.Input("image")], outputs=[io.Custom(socket).Output("faces")])

        @classmethod
        def execute(cls, image):
            return io.NodeOutput([[]])

    monkeypatch.setitem(host.NODE_CLASS_MAPPINGS, "FindFaces", FindFaces)
    inputs = {"vid2vid": ["vid2vid", 0], "portrait": ["picture", 0], "driver": ["picture", 0], **WITHOUT_BOX}
    prompt = {
        "vid2vid": ("RealPortraitLoadVid2Vid", {"weights": "given.safetensors"}),
        "picture": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0}),
        "faces": ("FindFaces", {"image": ["picture", 0]}),
        "extract": ("RealPortraitExtractKeypoints", {**inputs, "portrait_boxes": ["faces", 0], "driving_boxes": ["faces", 0]}),
        "show": ("PreviewImage", {"images": ["extract", 1]}),
    }
    graph = {name: {"class_type": kind, "inputs": given} for name, (kind, given) in prompt.items()}
    valid, _, _, errors = asyncio.run(execution.validate_prompt("0", graph, None))
    assert valid == fits and (fits or "return_type_mismatch" in json.dumps(errors))


def test_given_boxes_take_the_place_of_typed_ones(extract):
    """One box, a list of one, a list for one frame: all the same face as the typed box, without a detector."""
    typed = extract(portrait_box="40, 40, 80, 90", driver_box="30 30 60 70")[0]
    for shape in (lambda box: box, lambda box: [box], lambda box: [[box]]):
        given, _, report = extract(portrait_boxes=shape(PORTRAIT_BOX), driving_boxes=shape(DRIVING_BOX))
        assert torch.allclose(given.portrait_points, typed.portrait_points) and report.startswith("Face found in 4 of 4 frames.")
        assert torch.allclose(given.driver_points, typed.driver_points, atol=1e-4)
        assert torch.allclose(given.driver.expression, typed.driver.expression, atol=1e-3)


def test_given_boxes_say_where_the_face_is(extract):
    plain = extract(portrait_boxes=PORTRAIT_BOX, driving_boxes=DRIVING_BOX)[0]
    found = extract(portrait_boxes=moved(PORTRAIT_BOX, 10, 3), driving_boxes=DRIVING_BOX)[0]
    assert torch.allclose(found.portrait_points - plain.portrait_points, torch.tensor([10.0, 3.0]), atol=1e-4)
    assert torch.equal(found.driver_points, plain.driver_points)
    found = extract(portrait_boxes=PORTRAIT_BOX, driving_boxes=moved(DRIVING_BOX, 3, 5))[0]
    assert torch.allclose(found.driver_points - plain.driver_points, torch.tensor([3.0, 5.0]), atol=1e-4)
    assert torch.equal(found.portrait_points, plain.portrait_points)


def test_a_box_of_each_frame(extract):
    """The steady motion of the boxes stays; one frame without a box is filled as missing_face says."""
    steady = [moved(DRIVING_BOX, 2 * i) for i in range(FRAMES)]
    for given in (steady, [[box] for box in steady]):
        points = extract(portrait_boxes=PORTRAIT_BOX, driving_boxes=given)[0].driver_points
        assert torch.allclose(points.diff(dim=0), torch.tensor([2.0, 0.0]).expand(FRAMES - 1, 5, 2), atol=1e-3)
    for nothing in ([], [{**DRIVING_BOX, "width": 0}]):
        given = [[box] for box in steady]
        given[1] = nothing
        found, _, report = extract(portrait_boxes=PORTRAIT_BOX, driving_boxes=given, missing_face="interpolate")
        assert found.present.tolist() == [True, False, True, True] and "Missing in frame 1: the pose is interpolated" in report


def test_the_face_is_chosen_among_given_boxes(extract):
    two = [{"x": 70, "y": 60, "width": 60, "height": 70}, {"x": 5, "y": 5, "width": 40, "height": 40}]
    given = {"portrait_boxes": two, "driving_boxes": DRIVING_BOX}
    assert bool((extract(**given)[0].portrait_points[:, 0] > 70).all())
    assert bool((extract(**given, portrait_face="1st from left")[0].portrait_points[:, 0] < 45).all())


def test_landmarks_give_the_points_themselves(extract):
    found = extract(portrait_boxes=face_mesh(30, 20, 100, SIZE), driving_boxes=face_mesh(20, 25, 70, DRIVING_SIZE, FRAMES))[0]
    relative = torch.tensor([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])
    assert torch.allclose(found.portrait_points, relative * 100 + torch.tensor([30.0, 20.0]), atol=1e-3)
    assert torch.allclose(found.driver_points, (relative * 70 + torch.tensor([20.0, 25.0])).expand(FRAMES, 5, 2), atol=1e-3)


@pytest.mark.parametrize(
    "given, message",
    [
        ([[DRIVING_BOX]] * 3, "driving_boxes has the faces of 3 frames, and the driving video has 4"),
        ([DRIVING_BOX] * 3, "driving_boxes has the faces of 3 frames"),
        ([[DRIVING_BOX]] * 3 + [[[1, 2, 3, 4]]], r"driving_boxes, frame 3: a box must have the numbers x, y, width and height"),
        ([1, 2, 30, 40], "driving_boxes, frame 0: a box must have the numbers"),
        ({"x": 1, "y": 2, "width": "wide", "height": 4}, "frame 0: a box must have the numbers"),
        ({**DRIVING_BOX, "x": float("nan")}, "frame 0: A face's box must be four finite numbers"),
        (moved(DRIVING_BOX, 200), r"frame 0: a face in the middle of \(260, 65\) px is outside the picture of 110x120 px"),
        ([], "driving_boxes has no frames"),
        ("30 30 60 70", "must be boxes or face landmarks of another node; this is a str"),
        (face_mesh(0, 0, 50, (64, 64)), "found on pictures of 64x64 px, and these are 110x120 px"),
        ({"frames": [[{"bbox_xyxy": [0, 0, 1, 1]}]]}, "frame 0: a face must have landmarks_xy"),
        ({"frames": [[{"landmarks_xy": np.zeros((7, 2))}]]}, r"frame 0: A face's landmarks must be \(N, 2\) px"),
    ],
    ids=str,
)
def test_values_that_are_no_faces(pack, extract, given, message):
    with refused(pack, message):
        extract(portrait_boxes=PORTRAIT_BOX, driving_boxes=given)


def test_a_typed_box_and_given_ones_contradict_each_other(pack, extract):
    with refused(pack, "portrait_box and portrait_boxes both say where the face is"):
        extract(portrait_box="40, 40, 80, 90", portrait_boxes=PORTRAIT_BOX, driving_boxes=DRIVING_BOX)
    with refused(pack, "driving_box and driving_boxes both"):
        extract(driver_box="30 30 60 70", portrait_boxes=PORTRAIT_BOX, driving_boxes=DRIVING_BOX)

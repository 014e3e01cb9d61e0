"""What may arrive at the nodes' inputs: pictures of any kind, values of any type from a workflow's JSON, faces of other nodes.

Each value passes the host's own validation, as a queued workflow does, and then the node, on tiny networks. It ends in a result
without NaN, in what the host's validation says, or in an error of the pack.
"""

import asyncio
import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from fuzzing import NUMBERS, TEXTS, cases, fuzz, junk, outcome, refusal
from hypothesis import strategies as st

# ---- pictures ----

SIDES = (0, 1, 2, 3, 4, 5, 15, 16, 17, 24)
DTYPES = [
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64),
]
VALUES = (0.5, 0.0, 1.0, -1.0, 2.0, 255.0, 1e30, float("nan"), float("inf"), -float("inf"))
NO_PICTURES = [None, 0, 1.5, "picture", b"", [], {}, [torch.zeros(1, 16, 16, 3)], np.zeros((1, 16, 16, 3)), torch.nn.Identity()]


@st.composite
def tensors(draw) -> torch.Tensor:
    """Tensors that look like an IMAGE, more or less."""
    kind = draw(st.integers(0, 3))
    if kind:  # nearly right
        shape = [draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((16, 17, 24))), draw(st.sampled_from((16, 20)))]
        shape += [draw(st.sampled_from((1, 3, 4, 3, 3, 2, 5)))]
        shape = shape[draw(st.sampled_from((0, 0, 0, 1))) :]
    else:
        shape = draw(st.lists(st.sampled_from(SIDES), max_size=6))
        while math.prod(shape) > 10**5:
            shape.pop()
    dtype = draw(st.sampled_from(DTYPES)) if draw(st.booleans()) else torch.float32
    image = torch.rand(shape)
    if image.numel() and draw(st.booleans()):
        image.view(-1)[draw(st.integers(0, image.numel() - 1))] = draw(st.sampled_from(VALUES))
    layout = draw(st.sampled_from(("plain", "plain", "turned", "strided", "repeated", "sparse", "meta", "grad")))
    if layout == "turned" and image.ndim > 1:
        image = image.transpose(0, -1).contiguous().transpose(0, -1)
    elif layout == "strided" and image.ndim > 1:
        image = image.repeat_interleave(2, 1)[:, ::2]
    elif layout == "repeated" and image.ndim:
        image = image[:1].expand(draw(st.sampled_from((1, 4))), *image.shape[1:]) if len(image) else image
    elif layout == "sparse" and image.ndim:
        return image.to_sparse()
    elif layout == "meta":
        image = image.to("meta")
    elif layout == "grad":
        return image.clone().requires_grad_(True)
    return image.to(dtype)


@cases(normal=400, nightly=15000)
def test_pictures_at_the_border(pack, count, record_property):
    images, errors = pack("nodes.host.images"), pack("realportrait_core.errors")

    def check(value) -> None:
        found = outcome(lambda: images.rgb(value, "portrait"), errors.InputError)
        if found is not None:
            assert found.ndim == 4 and found.shape[3] == 3 and found.dtype == torch.float32 and found.is_contiguous()
            low, high = found.aminmax()
            assert 0 <= low and high <= 1

    fuzz(tensors() | st.sampled_from(NO_PICTURES), check, count, record_property)


@cases(normal=100, nightly=6000)
def test_boxes_typed_into_a_widget(pack, count, record_property):
    images, errors = pack("nodes.host.images"), pack("realportrait_core.errors")
    numbers = st.lists(st.sampled_from(NUMBERS) | st.floats() | st.integers(), max_size=6)
    texts = numbers.map(lambda given: ", ".join(map(str, given))) | st.text(max_size=30) | st.sampled_from(TEXTS) | junk

    def check(text) -> None:
        found = outcome(lambda: images.box(text, "portrait_box"), errors.InputError)
        assert found is None or found.shape == (4,) and bool(torch.isfinite(found).all())

    fuzz(texts, check, count, record_property)


# ---- faces of other nodes ----

POINTS = st.sampled_from(
    [
        np.random.default_rng(0).uniform(5, 60, (478, 2)),
        np.zeros((478, 2)),
        np.full((478, 2), np.nan),
        np.full((478, 2), 1e30),
        np.zeros((5, 2), np.int64),
        np.zeros((0, 2)),
        np.zeros((478, 3)),
        np.zeros(2, object),
        np.array("text"),
        [[1, 2]] * 5,
        [[1, 2], [3]],
        [["a", "b"]] * 5,
        {"x": 1},
        "points",
        None,
        7,
    ]
)
coordinates = st.sampled_from([*NUMBERS, 10, 20.5, 32, np.float32(3), np.nan, None, "3", True, 10**400])
boxes = st.fixed_dictionaries({}, optional={name: coordinates for name in ("x", "y", "width", "height")})
right = st.fixed_dictionaries({name: st.integers(5, 40) for name in ("x", "y", "width", "height")})
faces_of_a_frame = st.lists(boxes | right | junk, max_size=3)
meshes = st.fixed_dictionaries(
    {"frames": st.lists(st.lists(st.fixed_dictionaries({"landmarks_xy": POINTS}) | junk, max_size=2) | junk, max_size=3) | junk},
    optional={
        "image_size": st.sampled_from([(64, 64), [64, 64], (64,), (1, 2, 3), 64, "64x64", None, (np.int64(64), 64.0)]) | junk
    },
)
FACES = boxes | right | st.lists(faces_of_a_frame | boxes | right, max_size=4) | meshes | junk


@cases(normal=200, nightly=12000)
def test_faces_of_other_nodes(pack, count, record_property):
    faces, errors = pack("nodes.host.faces"), pack("realportrait_core.errors")

    def check(value) -> None:
        for read, length in ((faces.portrait_faces, ()), (faces.driving_faces, (3,))):
            found = outcome(lambda: read(value, *length, 64, 64, "portrait_boxes"), errors.RealPortraitError)
            for face in [] if found is None else [face for frame in found for face in (frame if length else [frame])]:
                assert torch.isfinite(face.box).all() and torch.isfinite(face.points).all()

    fuzz(FACES, check, count, record_property)


# ---- widgets, through the host's validation ----


class Source:
    """A node of old kind whose outputs are of every type: what a value from another node comes from."""

    TYPES = ("IMAGE", "MASK", "MODEL", "VAE", "LATENT", "CONDITIONING", "VIDEO", "AUDIO", "BOUNDING_BOX")
    RETURN_TYPES = (*TYPES, *(f"REALPORTRAIT_{name}" for name in ("VID2VID", "STITCHING", "KEYPOINTS", "MOTION", "STATE")))
    FUNCTION, CATEGORY = "run", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {}}


@pytest.fixture(scope="module")
def linked(host, pack):
    """A value for every socket, and names for the loaders' menus."""
    import comfy.sd
    import folder_paths
    from comfy_api.latest import InputImpl

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.dit_file(pack, folder / "fuzzed.safetensors")
    tiny.vid2vid_file(pack, folder / "fuzzed_vid2vid.safetensors")
    run = lambda node, **inputs: host.NODE_CLASS_MAPPINGS[node].execute(**inputs).result
    with torch.inference_mode():
        vid2vid = run("RealPortraitLoadVid2Vid", weights="fuzzed_vid2vid.safetensors")[0]
        model = run("RealPortraitLoadModel", weights="fuzzed.safetensors", weight_dtype="default")[0]
        pictures = torch.rand(3, 160, 150, 3)
        given = dict(vid2vid=vid2vid, portrait=pictures[:1], driver=pictures, **tiny.EXTRACTION)
        keypoints = run("RealPortraitExtractKeypoints", **given)[0]
        motion = run("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="auto")[0]
        vae = comfy.sd.VAE(sd=tiny.vae_state(pack))
        run("RealPortraitSaveMotion", keypoints=keypoints, fps=25.0, filename_prefix="fuzzed/motion")
        state = pack("realportrait_core.long.state").ContinuationState(1, 16, 40, 0, {"steps": "4"}, {"portrait": "0" * 16})
        run("RealPortraitSaveState", state=state, filename_prefix="fuzzed/state")
        clip = run("RealPortraitConditioning", vae=vae, motion=motion, start_frame=0, frames=3, strength=1.0)
    video = InputImpl.VideoFromFile(str(Path(__file__).resolve().parents[1] / "data" / "800000.mp4"))
    return {
        "IMAGE": pictures,
        "MODEL": model,
        "VAE": vae,
        "LATENT": clip[2],
        "CONDITIONING": clip[0],
        "VIDEO": video,
        "REALPORTRAIT_VID2VID": vid2vid,
        "REALPORTRAIT_KEYPOINTS": keypoints,
        "REALPORTRAIT_MOTION": motion,
        "REALPORTRAIT_STATE": state,
    }


# Values that are right and quick; another widget has its default.
QUICK = {
    "weights": {"RealPortraitLoadModel": "fuzzed.safetensors", "RealPortraitLoadVid2Vid": "fuzzed_vid2vid.safetensors"},
    "steps": 1,
    "start_frame": 1,
    "frames": 2,
    "file": {
        "RealPortraitLoadMotion": "fuzzed/motion_00001_.safetensors [output]",
        "RealPortraitLoadDrivingVideo": "example: driving.mp4",
        "RealPortraitStreamDrivingVideo": "example: driving.mp4",
        "RealPortraitLoadState": "fuzzed/state_00001_.safetensors [output]",
    },
    "image": "example: portrait.png",
    "portrait_box": "40, 40, 80, 90",
    "driver_box": "30 30 60 70",
    "sampler_name": "euler",
    "scheduler": "normal",
    "filename_prefix": "fuzz/motion",
    "longest_side": 64,
}
COSTLY = {"steps", "frames"}  # of which a large number is right and takes long
LARGE = 40
# Validated alone: they take what is not in the repository (the three MLPs, the detector), or what is not in miniature.
NOT_RUN = {
    f"RealPortrait{name}" for name in ("LoadStitching", "Stitch", "EditExpression", "Animate", "AnimateLong", "Judge", "Live")
}


def nodes_of(host) -> dict:
    return {name: node for name, node in host.NODE_CLASS_MAPPINGS.items() if name.startswith("RealPortrait")}


def given_inputs(node_id: str, node, linked: dict) -> tuple[dict, dict]:
    """The widgets' values and the connected ones of a node that would run."""
    from comfy_api.latest import io

    widgets, links = {}, {}
    for part in node.GET_SCHEMA().inputs:
        if isinstance(part, io.WidgetInput):
            value = QUICK.get(part.id, part.default)
            value = value.get(node_id) if isinstance(value, dict) else value
            options = getattr(part, "options", None)
            widgets[part.id] = value if value is not None or not options else options[0]
        else:
            kind = part.get_io_type().split(",")[0]
            if not part.optional or kind in linked:
                links[part.id] = kind
    return {name: value for name, value in widgets.items() if value is not None}, links


def all_tensors(value, depth: int = 0):
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < 5 and isinstance(value, dict):
        for part in value.values():
            yield from all_tensors(part, depth + 1)
    elif depth < 5 and isinstance(value, (list, tuple)):
        for part in value:
            yield from all_tensors(part, depth + 1)
    elif depth < 5 and dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from all_tensors(getattr(value, field.name), depth + 1)


@pytest.fixture
def tried(host, pack, linked, monkeypatch):
    """tried(node id, {widget: value}): the host's validation, then the node."""
    import execution

    monkeypatch.setitem(host.NODE_CLASS_MAPPINGS, "FuzzSource", Source)
    errors, ours = pack("realportrait_core.errors"), nodes_of(host)

    def run(node_id: str, changes: dict) -> str:
        widgets, links = given_inputs(node_id, ours[node_id], linked)
        wired = {name: ["source", Source.RETURN_TYPES.index(kind)] for name, kind in links.items()}
        # A list is a link, so that the host takes a widget's list in this wrapping.
        values = {name: {"__value__": value} if isinstance(value, list) else value for name, value in changes.items()}
        inputs = {**widgets, **wired, **copy.deepcopy(values)}
        prompt = {"1": {"class_type": node_id, "inputs": inputs}, "source": {"class_type": "FuzzSource", "inputs": {}}}
        fine, complaints, _ = asyncio.run(execution.validate_inputs("fuzz", prompt, "1", {}))
        if not fine:
            assert all(complaint["message"] and "Traceback" not in str(complaint["details"]) for complaint in complaints)
            return "refused by the host"
        if any(isinstance(inputs.get(name), (int, float)) and not 0 < inputs[name] < LARGE for name in COSTLY):
            return "costly"
        if node_id in NOT_RUN or not set(links.values()) <= set(linked):
            return "validated"
        ready = {name: linked[links[name]] if name in links else value for name, value in inputs.items()}
        if "portrait" in ready:
            ready["portrait"] = ready["portrait"][:1]
        if node_id == "RealPortraitPasteBack":
            ready["frames"] = ready["frames"][:, :64, :64]
        result, refused = refusal(lambda: ours[node_id].execute(**ready).result, errors.RealPortraitError)
        if refused:
            return refused
        assert all(bool(torch.isfinite(tensor).all()) for tensor in all_tensors(result)), "NaN or infinity came out"
        return "ran"

    return run


def test_the_nodes_run_before_anything_is_changed(host, tried):
    outcomes = {node_id: tried(node_id, {}) for node_id in nodes_of(host)}
    assert {node_id: how for node_id, how in outcomes.items() if how != "ran" and node_id not in NOT_RUN} == {}


@cases(normal=250, nightly=6000)
def test_widgets_of_any_value(host, tried, linked, count, record_property):
    widgets = {name: sorted(given_inputs(name, node, linked)[0]) for name, node in nodes_of(host).items()}
    places = [(name, widget) for name, found in widgets.items() for widget in found]
    numbers = st.sampled_from([*NUMBERS, 3, 12, 64]) | st.floats()

    @st.composite
    def changes(draw) -> tuple[str, dict]:
        node_id, widget = draw(st.sampled_from(places))
        more = draw(st.lists(st.sampled_from(widgets[node_id]), max_size=1))
        return node_id, {name: draw(numbers | numbers | st.sampled_from(TEXTS) | junk) for name in [widget, *more]}

    fuzz(changes(), lambda case: tried(*case), count, record_property)

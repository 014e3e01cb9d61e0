"""Edit Expression, in the host's process, on networks of 26 and of LivePortrait's 21 keypoints."""

from pathlib import Path

import public
import pytest
import tiny
import torch
from refusal import refused
from safetensors.torch import save_file

BOX = "100, 90, 60, 70"
SLIDERS = {name: 0.0 for name in ("yaw", "pitch", "roll", "smile", "mouth", "eyes", "gaze_x", "gaze_y")}
MOVED = [
    *({name: degrees} for name in ("yaw", "pitch", "roll") for degrees in (-20.0, 20.0)),
    *({name: share} for name in ("smile", "mouth", "eyes", "gaze_x", "gaze_y") for share in (-1.0, 1.0)),
]


@pytest.fixture(scope="module")
def files(host, pack) -> Path:
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    for k in (26, 21, 15):
        tiny.vid2vid_file(pack, folder / f"expression{k}.safetensors", num_kp=k)
    flat = {f"{group}_{key}": 3 * value for group, state in public.stitching_groups(21).items() for key, value in state.items()}
    save_file(flat, folder / "expression_stitching.safetensors")
    return folder


@pytest.fixture(scope="module")
def networks(host, files) -> dict:
    load = host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"]
    with torch.inference_mode():
        return {k: load.execute(weights=f"expression{k}.safetensors").result[0] for k in (26, 21, 15)}


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    return torch.rand(1, 260, 250, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def edit(host, networks, portrait):
    """The node's output under some settings; k: of which network."""

    def run(k=26, **changes):
        given = dict(vid2vid=networks[k], portrait=portrait, live_preview=False, portrait_face="largest", portrait_box=BOX)
        with torch.inference_mode():
            return host.NODE_CLASS_MAPPINGS["RealPortraitEditExpression"].execute(**given | SLIDERS | changes)

    return run


def test_at_zero_it_is_the_generators_picture_of_the_portrait(pack, edit, networks, portrait):
    """G(W(f_r, x_s, x_s)) in the crop, and the portrait bit by bit around it."""
    image, mask, motion, told = edit().result
    network = networks[26].model
    keypoints = motion.keypoints
    x_s = pack("realportrait_core.vid2vid.keypoints").transform(keypoints.portrait)
    assert torch.equal(motion.x_d, x_s) and len(motion.maps) == 1
    assert torch.equal(motion.maps.f, motion.portrait_maps.f)
    with torch.inference_mode():
        drawn = network.generator(network.warping(keypoints.feature, x_s, x_s).out.half().float())
        frames = list(pack("realportrait_core.animation.vid2vid_frames").face_frames(network, motion))
    assert float((frames[0] - drawn).abs().max()) < 1e-5
    assert image.shape == portrait.shape and mask.shape == portrait.shape[:3]
    outside = mask[0] == 0
    assert outside.any() and torch.equal(image[0][outside], portrait[0][outside])
    assert float((image - portrait)[0][mask[0] == 1].abs().max()) > 0.05
    assert "No slider is moved" in told


@pytest.mark.parametrize("k", [26, 21])
@pytest.mark.parametrize("moved", MOVED, ids=str)
def test_every_slider_moves_the_keypoints_and_the_picture(edit, k, moved):
    (name, value), still = *moved.items(), edit(k).result
    image, _, motion, told = edit(k, **moved).result
    assert float((motion.x_d - still[2].x_d).abs().max()) > 2e-3
    assert not torch.equal(image, still[0])
    assert f"{name} {value:+g}" in told


def test_keypoints_of_other_numbers_turn_but_have_no_expression(pack, edit):
    assert not torch.equal(edit(15, yaw=10.0).result[0], edit(15).result[0])
    with refused(pack, "Of 15 keypoints it is not known.*slider of eyes"):
        edit(15, smile=0.5)


def test_the_networks_open_eyes_and_mouth(pack, run_node, files, edit):
    """In place of the keypoints' moves, and they hold the shoulders; at 0 they change nothing."""
    stitching = run_node("RealPortraitLoadStitching", weights="expression_stitching.safetensors")[0]
    core = pack("realportrait_core.vid2vid.stitching")
    for moved, name, ratios in (({"eyes": -1.0}, "eye", [0.35, 0.35, 0.0]), ({"mouth": 1.0}, "lip", [0.0, 0.5])):
        x_s = edit(21).result[2].x_d
        wanted = x_s + core.retarget_opening(stitching[name], x_s, torch.tensor([ratios]))
        wanted = core.stitch(stitching["stitching"], x_s, wanted)
        found = edit(21, stitching=stitching, **moved).result[2].x_d
        assert float((found - wanted).abs().max()) < 1e-5
        assert float((found - edit(21, **moved).result[2].x_d).abs().max()) > 1e-3
    assert torch.equal(edit(21, stitching=stitching).result[0], edit(21).result[0])
    with refused(pack, "belongs to another Face Vid2vid"):
        edit(26, stitching=stitching, smile=1.0)


def test_the_portrait_is_extracted_once(pack, edit, networks, monkeypatch):
    """A move of a slider runs neither M nor F; another portrait, or another box of it, does, and two are kept."""
    runs = []
    for part in ("motion", "appearance"):
        network = getattr(networks[26].model, part)
        forward = network.forward
        monkeypatch.setattr(network, "forward", lambda x, name=part, forward=forward: runs.append(name) or forward(x))
    other = torch.rand(1, 240, 250, 3, generator=torch.Generator().manual_seed(8))
    first = edit(portrait=other, smile=1.0).result[0]
    assert sorted(runs) == ["appearance", "motion"]
    edit(portrait=other.clone(), yaw=4.0)
    assert torch.equal(edit(portrait=other, smile=1.0).result[0], first) and len(runs) == 2
    edit(portrait=other, portrait_box="80, 70, 60, 70")
    assert len(runs) == 4
    edit(portrait=1 - other)
    edit(portrait=other, smile=1.0)
    assert len(runs) == 8


def test_the_face_is_chosen_as_elsewhere(pack, edit, monkeypatch):
    """By its box, or among those that the detector finds."""
    assert not torch.equal(edit(portrait_box="80, 70, 60, 70").result[0], edit().result[0])
    face = pack("realportrait_core.face.detect").Face
    boxes = torch.tensor([[30.0, 90, 50, 60], [130, 90, 60, 70]])
    nominal = pack("realportrait_core.face.track").nominal_points

    class Two:
        def __init__(self, path):
            pass

        def detect(self, picture):
            return [face(box, nominal(box, *picture.shape[:2]), 0.9) for box in boxes]

    node = pack("nodes.expression")
    monkeypatch.setattr(node, "FaceDetector", Two)
    monkeypatch.setattr(node.folders, "detector_path", lambda name: name)
    left, right = (edit(portrait_box="", portrait_face=whose).result[2].keypoints for whose in ("1st from left", "largest"))
    assert float(left.portrait_points[:, 0].max()) < 90 < 130 < float(right.portrait_points[:, 0].min())
    with refused(pack, "portrait_face is 'nobody'"):
        edit(portrait_box="", portrait_face="nobody")


def test_the_node_shows_its_picture_while_it_is_to(edit, portrait):
    """At most 768 px of it."""
    assert edit(live_preview=False).ui is None
    large = torch.rand(1, 1000, 1600, 3, generator=torch.Generator().manual_seed(5))
    (shown,) = edit(live_preview=True, portrait=large, portrait_box="400, 300, 300, 350").ui.as_dict()["images"]
    assert shown["type"] == "temp"


def test_a_face_vid2vid_without_a_generator_is_refused(pack, edit, networks, monkeypatch):
    monkeypatch.setattr(networks[26].model, "generator", None)
    with refused(pack, "have no generator", "WeightsError"):
        edit()

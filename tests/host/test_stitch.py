"""Load Stitching and Stitch and Retarget, in the host's process, on networks of LivePortrait's 21 keypoints."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import public
import pytest
import refusal
import tiny
import torch
from safetensors.torch import save_file

MAPS = {"mode": "relative", "pose_gain": 1.0, "expression_gain": 1.0, "neutral_frame": 0, "framing": "auto"}
NOTHING = {"hold_shoulders": False, "eyes": -1.0, "portrait_eyes": 0.35, "lips": -1.0, "portrait_lips": 0.0}


@pytest.fixture(scope="module")
def weights(host, pack):
    """models/realportrait with a Face Vid2vid, the stitching beside it, and both in one file."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    bundle = tiny.vid2vid_file(pack, folder / "tiny21.safetensors", num_kp=21)
    flat = {  # three times as strong, so that a wish shows in the coarse maps
        f"{group}_{key}": 3 * value for group, state in public.stitching_groups(21).items() for key, value in state.items()
    }
    save_file(flat, folder / "renamed.safetensors")
    checkpoint = pack("realportrait_core.checkpoint")
    state, metadata = checkpoint.read_safetensors(bundle)
    checkpoint.save(folder / "whole.safetensors", state | flat, metadata)
    yield folder
    for name in ("tiny21", "renamed", "whole"):
        (folder / f"{name}.safetensors").unlink()


@pytest.fixture
def load(run_node, weights):
    return lambda name="renamed.safetensors": run_node("RealPortraitLoadStitching", weights=name)


@pytest.fixture
def vid2vid(run_node, weights):
    return run_node("RealPortraitLoadVid2Vid", weights="tiny21.safetensors")[0]


@pytest.fixture
def keypoints(run_node, vid2vid):
    g = torch.Generator().manual_seed(3)
    portrait, driver = torch.rand(1, 160, 150, 3, generator=g), torch.rand(3, 120, 110, 3, generator=g)
    return run_node("RealPortraitExtractKeypoints", vid2vid=vid2vid, portrait=portrait, driver=driver, **tiny.EXTRACTION)[0]


@pytest.fixture
def maps(run_node, vid2vid, keypoints, load):
    """The maps under some wishes; wishes=None: without the node."""

    def run(wishes=None):
        given = keypoints
        if wishes is not None:
            stitching = load()[0]
            given = run_node("RealPortraitStitch", stitching=stitching, keypoints=keypoints, **{**NOTHING, **wishes})[0]
        return run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=given, **MAPS)[0].maps

    return run


def apart(a, b) -> float:
    return float((a.f.float() - b.f.float()).abs().max())


refused = partial(refusal.refused, kind="WeightsError")


def test_without_a_wish_nothing_changes(maps):
    plain, left = maps(), maps({})
    assert torch.equal(plain.f, left.f) and torch.equal(plain.face, left.face)
    assert torch.equal(maps({"portrait_eyes": 0.1, "portrait_lips": 0.3}).f, plain.f)


@pytest.mark.parametrize(
    "before, after",
    [
        ({}, {"hold_shoulders": True}),
        ({}, {"eyes": 0.0}),
        ({"eyes": 0.0}, {"eyes": 0.6}),
        ({}, {"lips": 0.0}),
        ({"eyes": 0.3}, {"eyes": 0.3, "portrait_eyes": 0.8}),
        ({"lips": 0.3}, {"lips": 0.3, "portrait_lips": 0.8}),
    ],
    ids=str,
)
def test_every_wish_changes_the_maps(maps, before, after):
    assert apart(maps(before), maps(after)) > 1e-3


def test_the_networks_do_what_they_are_asked(pack, run_node, load, keypoints):
    """Eyes and lips by their own networks, on top of the driver's motion, then the shoulders, and with them the facial mask."""
    stitching = pack("realportrait_core.vid2vid.stitching")
    retargeting, transform = pack("realportrait_core.animation.retargeting"), pack("realportrait_core.vid2vid.keypoints").transform
    networks = load()[0]
    wishes = {"hold_shoulders": True, "eyes": 0.5, "portrait_eyes": 0.2, "lips": 0.1, "portrait_lips": 0.4}
    given = run_node("RealPortraitStitch", stitching=networks, keypoints=keypoints, **wishes)[0]
    x_s, driven = transform(keypoints.portrait), retargeting.driven_keypoints(keypoints, "relative", 1.0, 1.0, 0)
    wanted = driven + stitching.retarget_opening(networks["eye"], x_s, torch.tensor([[0.2, 0.2, 0.5]]))
    wanted = wanted + stitching.retarget_opening(networks["lip"], x_s, torch.tensor([[0.4, 0.1]]))
    for frame, found in enumerate(retargeting.driven_keypoints(given, "relative", 1.0, 1.0, 0)):
        alone = stitching.stitch(networks["stitching"], x_s, wanted[frame : frame + 1])[0]
        assert float((found - alone).abs().max()) < 1e-5


def test_an_edit_afterwards_keeps_the_wishes(run_node, load, keypoints):
    given = run_node("RealPortraitStitch", stitching=load()[0], keypoints=keypoints, **{**NOTHING, "eyes": 0.4})[0]
    edit = {"head_size": "constant", "smooth_head": 0.0, "smooth_expression": 1.0, "smooth_track": 0.0, "mirror": False}
    assert run_node("RealPortraitEditMotion", keypoints=given, **edit)[0].finish == given.finish


def test_the_loader_gives_the_stitching_of_its_own_file(run_node, weights, load):
    """That of a bundle with both. A bundle without any has none, although some lies beside it."""
    network, given = load()[0]["stitching"], run_node("RealPortraitLoadVid2Vid", weights="whole.safetensors")[2]
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), given["stitching"].state_dict().values()))
    assert run_node("RealPortraitLoadVid2Vid", weights="tiny21.safetensors")[2] is None


def test_without_networks_the_keypoints_pass(pack, run_node, keypoints):
    """The sliders, which would do nothing, are refused."""
    passed = run_node("RealPortraitStitch", stitching=None, keypoints=keypoints, **NOTHING | {"hold_shoulders": True})[0]
    assert passed is keypoints
    for wish in ({"eyes": 0.0}, {"lips": 0.2}):
        with refused(pack, r"stitching_retargeting_module\.safetensors \(0\.9 MB\)", kind="InputError"):
            run_node("RealPortraitStitch", stitching=None, keypoints=keypoints, **NOTHING | wish)


def test_any_file_that_holds_them_is_recognised_by_its_keys(load):
    """Alone under another name, or in a bundle; the line names file and licence."""
    (alone, said), (inside, _) = load(), load("whole.safetensors")
    for name in ("stitching", "lip", "eye"):
        assert torch.equal(alone[name].mlp[0].weight, inside[name].mlp[0].weight)
    assert said.startswith("renamed.safetensors: LivePortrait's stitching and retargeting MLPs. Licence: MIT")


def test_another_file_is_named_for_what_it_is(pack, load, weights):
    with refused(pack, "tiny21.safetensors looks like a Face Vid2vid bundle; this slot needs LivePortrait's stitching"):
        load("tiny21.safetensors")
    with refused(pack, "not one of the"):
        load("../renamed.safetensors")
    shutil.copyfile(weights / "renamed.safetensors", weights / "cut.safetensors")
    with (weights / "cut.safetensors").open("r+b") as file:
        file.truncate(5000)
    try:
        with refused(pack, "cut short"):
            load("cut.safetensors")
    finally:
        (weights / "cut.safetensors").unlink()


def test_keypoints_of_another_number_are_refused(pack, run_node, load, keypoints):
    fewer = replace(keypoints, portrait=keypoints.portrait._map(lambda x: x[:, :15] if x.shape[1:2] == (21,) else x))
    with refused(pack, "takes 126 numbers to 65, and 15 keypoints need 90 to 47", kind="InputError"):
        run_node("RealPortraitStitch", stitching=load()[0], keypoints=fewer, **NOTHING)

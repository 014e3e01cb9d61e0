"""Animate One Frame, in the host's process, with the bundled weights: what it keeps from run to run, and when it lets go."""

import gc
import math

import demo_media
import public
import pytest
import torch
import yunet

NODE = "RealPortraitLive"
SETTINGS = dict(reset=False, result="face crop", detect_every=1)


@pytest.fixture(scope="module")
def pictures():
    """The portrait (1, 256, 256, 3) and driving frames (3, 256, 256, 3)."""
    return demo_media.pictures(3)


@pytest.fixture
def load(run_node):
    return lambda: run_node("RealPortraitLoadVid2Vid", weights="realportrait_mini_vid2vid.safetensors")[0]


@pytest.fixture
def animate(host, pack, pictures, monkeypatch):
    """animate(weights, frames, node="1") -> its pictures, as the host runs the node of that id in a graph."""
    detector = yunet.onnx()
    monkeypatch.setattr(pack("nodes.host.folders"), "detector_path", lambda name: detector)
    from comfy_api.latest import io

    def run(vid2vid, frame, node="1", portrait=pictures[0], **changes):
        kind = host.NODE_CLASS_MAPPINGS[NODE].PREPARE_CLASS_CLONE({io.Hidden.unique_id: node})
        return kind.EXECUTE_NORMALIZED(vid2vid=vid2vid, portrait=portrait, frame=frame, **SETTINGS | changes).result[0]

    return run


def apart(a, b) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def test_state_is_kept_from_run_to_run(pack, load, animate, pictures):
    """Three prompts of one frame are one prompt of three; a reset, another portrait and another node begin anew."""
    vid2vid, (portrait, driving) = load(), pictures
    together = animate(vid2vid, driving, node="a")
    one_by_one = torch.cat([animate(vid2vid, frame[None], node="b") for frame in driving])
    assert together.shape == (3, 256, 256, 3) and apart(together, one_by_one) < 1e-4
    moved, at_rest = together[2:], together[:1]
    assert apart(moved, at_rest) > 0.1
    assert apart(animate(vid2vid, driving[2:], node="b", reset=True), at_rest) < 1e-3
    assert apart(animate(vid2vid, driving[2:], node="c"), at_rest) < 1e-3
    assert apart(animate(vid2vid, driving[2:], node="a", portrait=portrait.clone()), moved) < 1e-3  # equal, if not the same
    mirrored = animate(vid2vid, driving[2:], node="a", portrait=portrait.flip(2))
    assert (mirrored - at_rest.flip(2)).abs().mean() < 0.5 * (mirrored - at_rest).abs().mean()


def test_settings_of_each_run(run_node, load, animate, pictures, pack, monkeypatch):
    """Result and detection may change without starting anew."""
    vid2vid, (portrait, driving) = load(), pictures
    animate(vid2vid, driving[:1])
    crop = animate(vid2vid, driving[2:])
    whole = animate(vid2vid, driving[2:], result="portrait")
    assert whole.shape == (1, 256, 256, 3) and apart(whole, crop) > 0.1
    assert apart(whole[:, -1], portrait[:, -1]) == 0  # below the crop

    detector, looked = pack("realportrait_core.face.detect").FaceDetector, []
    detect = detector.detect
    monkeypatch.setattr(detector, "detect", lambda self, picture: looked.append(1) or detect(self, picture))
    for every, times in ((1, 4), (2, 2)):
        looked.clear()
        animate(vid2vid, driving[2:].expand(4, -1, -1, -1), detect_every=every)
        assert len(looked) == times


def test_stitching(pack, load, animate, pictures):
    vid2vid, driving = load(), pictures[1]
    k = vid2vid.model.cfg.num_kp
    groups = public.stitching_groups(k)
    flat = {f"{group}_{key.replace('module.', '')}": value for group, state in groups.items() for key, value in state.items()}
    checkpoint = pack("realportrait_core.vid2vid.checkpoint")
    stitching = checkpoint.stitching_networks({key.replace("_mlp", "_module.mlp"): value for key, value in flat.items()})
    animate(vid2vid, driving[:1])
    assert apart(animate(vid2vid, driving[2:]), animate(vid2vid, driving[2:], stitching=stitching)) > 1e-2
    wrong = dict(stitching, stitching=stitching["lip"])
    with pytest.raises(pack("realportrait_core.errors").InputError, match="stitching network takes"):
        animate(vid2vid, driving[2:], stitching=wrong)


def test_the_state_goes_with_the_weights_and_is_bounded(pack, load, animate, pictures):
    live = pack("nodes.live")
    vid2vid, driving = load(), pictures[1]
    for node in range(live.KEPT + 2):
        animate(vid2vid, driving[:1], node=str(node))
    assert list(live.SESSIONS.of[vid2vid]) == [str(node) for node in range(2, live.KEPT + 2)]
    before = len(live.SESSIONS.of)
    import comfy.model_management

    comfy.model_management.unload_all_models()  # as the host's /free, which also drops the outputs of nodes
    del vid2vid
    gc.collect()
    assert len(live.SESSIONS.of) < before


def test_it_runs_again_for_equal_inputs(host):
    """What it gives depends on the frames before: the host must not take the last result from its cache."""
    assert math.isnan(host.NODE_CLASS_MAPPINGS[NODE].fingerprint_inputs(**SETTINGS))

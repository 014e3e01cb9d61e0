"""Edit Motion, the gains and ranges of Apply Motion to Portrait, and motion files, as nodes in the host's process."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import yunet
from refusal import refused
from shown import cells, on_the_node

EDIT = {"head_size": "driven", "smooth_head": 0.0, "smooth_expression": 0.0, "smooth_track": 0.0, "mirror": False}
MAPS = {"mode": "relative", "pose_gain": 1.0, "expression_gain": 1.0, "neutral_frame": 0, "framing": "auto"}  # of old workflows
PORTRAIT_BOX, DRIVER_BOX = "40, 40, 80, 90", "30 30 60 70"


@pytest.fixture(scope="module")
def vid2vid(host, pack):
    """Tiny weights of 26 keypoints, the number whose eyes and mouth are known."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.vid2vid_file(pack, folder / "tiny26.safetensors", num_kp=26)
    return host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"].execute(weights="tiny26.safetensors").result[0]


def picture(frames, height=160, width=150, seed=3):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def keypoints(host, pack, vid2vid):
    """Extracted by the node, and then given a driver who moves: a random M sees hardly any difference between frames."""
    with torch.inference_mode():
        found = (
            host.NODE_CLASS_MAPPINGS["RealPortraitExtractKeypoints"]
            .execute(
                vid2vid=vid2vid,
                portrait=picture(1),
                driver=picture(7, 120, 110),
                portrait_face="largest",
                driver_face="largest",
                missing_face="hold",
                portrait_box=PORTRAIT_BOX,
                driver_box=DRIVER_BOX,
            )
            .result[0]
        )
        g = torch.Generator().manual_seed(4)
        rotation = pack("realportrait_core.vid2vid.keypoints").rotation_matrix(*(20 * torch.randn(3, 7, generator=g)))
        driver = replace(
            found.driver,
            rotation=rotation,
            expression=0.3 * torch.randn(7, 26, 3, generator=g),
            scale=found.driver.scale * (0.2 * torch.randn(7, 1, generator=g)).exp(),
            translation=0.3 * torch.randn(7, 3, generator=g),
        )
        return replace(found, driver=driver)


@pytest.fixture
def maps(run_node, vid2vid, keypoints):
    def run(given=None, **changes):
        return run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=given or keypoints, **{**MAPS, **changes})

    return run


@pytest.fixture
def edit(run_node, keypoints):
    return lambda **changes: run_node("RealPortraitEditMotion", keypoints=keypoints, **{**EDIT, **changes})[0]


def apart(a, b) -> float:
    return float((a.maps.f.float() - b.maps.f.float()).abs().max())


# ---- what was saved before these inputs were there ----


def test_an_old_workflow_gives_the_old_maps(pack, maps, vid2vid, keypoints):
    """Without the new inputs, and with them at their defaults: the maps that the core made before."""
    driven = pack("realportrait_core.animation.retargeting").drive_keypoints(keypoints, "relative", 0.7, 1.3, neutral=0)
    old = pack("realportrait_core.animation.mapping").motion_maps(vid2vid.model, driven, size=64)
    found = maps(pose_gain=0.7, expression_gain=1.3)[0]
    assert torch.equal(found.maps.f, old.maps.f) and torch.equal(found.maps.face, old.maps.face)
    spelled = maps(
        pose_gain=0.7,
        expression_gain=1.3,
        eye_gain=1.0,
        mouth_gain=1.0,
        rotation_gain=1.0,
        translation_gain=1.0,
        scale_gain=1.0,
        first_frame=0,
        frames=0,
    )[0]
    assert torch.equal(spelled.maps.f, old.maps.f)


def test_new_inputs_come_after_the_old_ones(host):
    """A saved workflow in the browser's format tells widgets by their position."""
    given = host.NODE_CLASS_MAPPINGS["RealPortraitMotionMaps"].INPUT_TYPES()
    assert list(given["required"])[2:] == list(MAPS)
    assert list(given["optional"]) == [
        "eye_gain",
        "mouth_gain",
        "rotation_gain",
        "translation_gain",
        "scale_gain",
        "first_frame",
        "frames",
        "rest_gain",
    ]
    assert all(options["default"] in (0, 1) for _, options in given["optional"].values())
    assert given["required"]["neutral_frame"][1]["default"] == given["required"]["neutral_frame"][1]["min"] == -1


# ---- every knob does something ----


@pytest.mark.parametrize("name", ["eye_gain", "mouth_gain", "rotation_gain", "translation_gain", "scale_gain", "rest_gain"])
def test_every_gain_changes_the_maps(maps, name):
    assert apart(maps(**{name: 0.0})[0], maps()[0]) > 1e-3


@pytest.mark.parametrize(
    "gain, part",
    [
        ("pose_gain", "rotation"),
        ("pose_gain", "scale"),
        ("pose_gain", "translation"),
        ("expression_gain", "expression"),
        ("rotation_gain", "rotation"),
        ("scale_gain", "scale"),
        ("translation_gain", "translation"),
        ("eye_gain", "eyes"),
        ("mouth_gain", "mouth"),
        ("rest_gain", "rest"),
    ],
)
def test_a_gain_of_nothing_keeps_the_portraits_part(pack, maps, keypoints, gain, part):
    """Then this part of the driver's motion does not matter, and at a gain of 1 it does."""
    found = pack("realportrait_core.vid2vid.regions")
    regions = {"eyes": found.EYES[26], "mouth": found.MOUTH[26], "rest": set(range(26)) - set(found.EYES_AND_MOUTH[26])}
    chosen = list(regions.get(part, range(26))) if part in (*regions, "expression") else slice(None)
    name = "expression" if part in regions else part
    values = getattr(keypoints.driver, name).clone()
    values[1:, chosen] = values[1:, chosen].roll(1, 0)  # the neutral frame, 0, keeps its own
    other = replace(keypoints, driver=replace(keypoints.driver, **{name: values}))
    assert apart(maps(other)[0], maps()[0]) > 1e-3
    assert apart(maps(other, **{gain: 0.0})[0], maps(**{gain: 0.0})[0]) < 1e-4


def test_modes(maps, keypoints):
    """'relative' starts on the portrait at the neutral frame, 'paper-absolute' does not."""
    relative, absolute = maps()[0], maps(mode="paper-absolute")[0]
    own = relative.portrait_maps.f.float()
    assert float((relative.maps.f[:1].float() - own).abs().max()) < 1e-2 * float(own.abs().max())
    assert float((absolute.maps.f[:1].float() - own).abs().max()) > 1e-2 * float(own.abs().max())


def test_framing(maps, keypoints):
    """A face that is small in its picture: 'whole' shows the picture's shorter side, 'auto' a square around the face,
    'half-body' one of nearly twice that side, with the face in its upper half."""
    far = replace(keypoints, portrait_size=(1280, 900), portrait_points=keypoints.portrait_points + torch.tensor([300.0, 300.0]))
    shown = {framing: maps(far, framing=framing)[0].portrait_to_frame for framing in ("auto", "half-body", "whole")}
    close, half, whole = (float(64 / forward[0, 0]) for forward in shown.values())
    assert whole == pytest.approx(900) and 160 < close < 400 and half == pytest.approx(close * 4.6 / 2.44)
    middle = torch.tensor([*far.portrait_points.mean(0).tolist(), 1.0], dtype=torch.float64)
    assert float((shown["half-body"] @ middle)[1]) < 24 < 28 < float((shown["auto"] @ middle)[1])
    near = replace(keypoints, portrait_size=(300, 280))
    assert float(64 / maps(near, framing="half-body")[0].portrait_to_frame[0, 0]) == pytest.approx(280)


@pytest.mark.parametrize(
    "changes",
    [{"head_size": "steady"}, {"head_size": "constant"}, {"smooth_head": 2.0}, {"smooth_expression": 2.0}, {"mirror": True}],
    ids=str,
)
def test_every_edit_changes_the_maps(maps, edit, changes):
    plain = maps()[0]
    assert apart(maps(edit())[0], plain) == 0
    if not changes.get("mirror"):
        assert apart(maps(edit(**changes))[0], plain) > 1e-3
        return
    mirrored = edit(mirror=True)
    assert apart(maps(mirrored)[0], plain) > 1e-3
    assert not torch.equal(mirrored.driver_points, edit().driver_points)


def test_the_smoothed_track_moves_the_mask(run_node, vid2vid, keypoints, maps):
    jumpy = replace(keypoints, driver_points=keypoints.driver_points + 5 * torch.randn(7, 1, 2))
    calm = run_node("RealPortraitEditMotion", keypoints=jumpy, **{**EDIT, "smooth_track": 3.0})[0]
    shaken, still = (maps(given)[0].maps.face[..., 2] for given in (jumpy, calm))
    assert float(still.diff(dim=0).abs().mean()) < float(shaken.diff(dim=0).abs().mean())


def test_the_neutral_frame_is_chosen_and_reported(pack, maps, keypoints):
    chosen = pack("realportrait_core.animation.retargeting").find_neutral(keypoints)
    motion, _, report = maps(neutral_frame=-1)
    assert f"neutral frame is {chosen}, chosen automatically" in report and "degrees" in report
    assert apart(motion, maps(neutral_frame=chosen)[0]) == 0
    assert "neutral frame is 3, chosen by hand" in maps(neutral_frame=3)[2]
    assert "neutral" not in maps(mode="paper-absolute", neutral_frame=-1)[2]
    assert apart(maps(neutral_frame=3)[0], maps(neutral_frame=4)[0]) > 1e-3


def test_a_range_of_frames(pack, maps):
    whole = maps(neutral_frame=1)[0]
    some, preview, report = maps(neutral_frame=1, first_frame=3, frames=2)
    assert len(some.maps) == len(preview) == 2 and report.startswith("Frames 3 to 4 of the driving video's 7.")
    assert float((some.maps.f.float() - whole.maps.f[3:5].float()).abs().max()) < 1e-2
    assert len(maps(first_frame=5, frames=100)[0].maps) == 2 and len(maps(first_frame=5)[0].maps) == 2
    with refused(pack, "range of 0 frames from frame 7 .* 7 driving frames"):
        maps(first_frame=7)


def test_edits_leave_their_input_alone(edit, keypoints):
    before = keypoints.driver.expression.clone(), keypoints.driver_points.clone()
    edit(head_size="constant", smooth_head=3.0, smooth_expression=3.0, smooth_track=3.0, mirror=True)
    assert torch.equal(keypoints.driver.expression, before[0]) and torch.equal(keypoints.driver_points, before[1])


def test_edits_that_cannot_be(pack, edit):
    with refused(pack, "head_size is 'huge'"):
        edit(head_size="huge")
    with refused(pack, "smoothing of the head is 99"):
        edit(smooth_head=99.0)


# ---- motion files ----


@pytest.fixture
def saved(run_node, keypoints):
    """save(keypoints) -> (path below output, name in input): saved, and copied over as a user does."""
    import folder_paths

    def run(given=None, prefix="motion/test", fps=12.5):
        (name,) = run_node("RealPortraitSaveMotion", keypoints=given or keypoints, fps=fps, filename_prefix=prefix)
        path = Path(folder_paths.get_output_directory()) / name
        shutil.copy(path, Path(folder_paths.get_input_directory()) / path.name)
        return path, path.name

    return run


@pytest.fixture
def load(run_node, vid2vid):
    def run(file, **changes):
        given = {"vid2vid": vid2vid, "portrait": picture(1), "portrait_face": "largest", "portrait_box": PORTRAIT_BOX}
        return run_node("RealPortraitLoadMotion", file=file, **{**given, **changes})

    return run


def test_a_saved_motion_drives_as_the_video_did(maps, saved, load, edit):
    for given in (None, edit(mirror=True, smooth_head=2.0)):
        _, name = saved(given)
        joined, preview, fps, report = load(name)
        again, before = maps(joined)[0], maps(given)[0]
        assert apart(again, before) <= 2e-3 * float(before.maps.f.abs().max())  # fp16, of poses that lie elsewhere
        assert torch.allclose(again.maps.face, before.maps.face, atol=1e-5)
        assert fps == 12.5 and preview.shape == (7, 384, 768, 3) and "7 frames of 26 keypoints at 12.5" in report


def test_the_node_shows_the_portrait_and_frames_of_the_motion(host, vid2vid, keypoints, saved):
    """The portrait, then where the face was in five of the seven frames: lines on black, red where it was missing."""
    missing = replace(keypoints, present=torch.arange(7) != 6)
    result = host.NODE_CLASS_MAPPINGS["RealPortraitLoadMotion"].execute(
        vid2vid, picture(1), saved(missing)[1], "largest", PORTRAIT_BOX
    )
    portrait, *frames = cells(on_the_node(result), 2, 3)
    assert portrait.mean() > 0.3 and all(0 < frame.mean() < 0.1 for frame in frames)
    red = [bool(((frame[..., 0] > 0.9) & (frame[..., 1] < 0.5)).any()) for frame in frames]
    assert red == [False] * 4 + [True]


def test_another_portrait(maps, saved, load):
    joined = load(saved()[1], portrait=picture(1, 200, 180, seed=8))[0]
    assert joined.portrait_size == (200, 180) and len(maps(joined)[0].maps) == 7


def test_the_chosen_face_or_box_of_the_portrait(pack, saved, load, monkeypatch):
    """With the real detector: a small head at the left and a large one at the right; and with a box in its place."""
    av = pytest.importorskip("av")
    heads = []
    for name in ("800000", "810000"):
        with av.open(str(Path(__file__).resolve().parents[1] / "data" / f"{name}.mp4")) as video:
            heads.append(torch.from_numpy(next(video.decode(video=0)).to_ndarray(format="rgb24"))[None] / 255)
    both = torch.cat([torch.nn.functional.pad(heads[0][:, ::2, ::2], (0, 0, 0, 0, 0, 128)), heads[1]], 2)
    detector, (_, name) = str(yunet.onnx()), saved()
    monkeypatch.setattr(pack("nodes.host.folders").folder_paths, "get_full_path", lambda folder, name: detector)
    for face, right in (("1st from left", False), ("2nd from left", True), ("largest", True)):
        x = load(name, portrait=both, portrait_face=face, portrait_box="")[0].portrait_points[:, 0]
        assert bool((x > 128).all() if right else (x < 128).all())
    with refused(pack, "2 faces, where only one is allowed", "FaceError"):
        load(name, portrait=both, portrait_face="the only one", portrait_box="")
    here, there = (load(name, portrait=both, portrait_box=box)[0].portrait_points for box in ("40 40 80 90", "47 45 80 90"))
    assert torch.allclose(there - here, torch.tensor([7.0, 5.0]), atol=1e-4)


def test_files_are_numbered_and_none_is_overwritten(saved):
    first, second = saved(prefix="motion/again")[0], saved(prefix="motion/again")[0]
    assert first != second and first.is_file() and second.name == "again_00002_.safetensors"


@pytest.mark.parametrize("prefix", ["../escaped", "/tmp/escaped", "a/../../escaped"])
def test_nothing_is_written_outside_the_output_folder(pack, saved, prefix):
    with refused(pack, "cannot begin the name of a file below the output folder"):
        saved(prefix=prefix)


@pytest.mark.parametrize("name", ["../output/motion/test_00001_.safetensors", "/etc/passwd", "no such file", "", "test\0"])
def test_only_files_of_the_input_folder_are_opened(host, pack, saved, load, name):
    saved()
    said = host.NODE_CLASS_MAPPINGS["RealPortraitLoadMotion"].validate_inputs(file=name)
    assert isinstance(said, str) and "is not one of the" in said
    with refused(pack, "is not one of the"):
        load(name)


def test_a_damaged_file_is_refused_before_anything_runs(host, saved):
    import folder_paths

    _, name = saved(prefix="motion/damaged")
    node, path = host.NODE_CLASS_MAPPINGS["RealPortraitLoadMotion"], Path(folder_paths.get_input_directory()) / name
    assert node.validate_inputs(file=name) is True
    stamp = node.fingerprint_inputs(file=name, portrait_face="largest")
    path.write_bytes(path.read_bytes()[:-5])
    assert "cut short" in node.validate_inputs(file=name)
    assert node.fingerprint_inputs(file=name, portrait_face="largest") != stamp
    assert name in host.NODE_CLASS_MAPPINGS["RealPortraitLoadMotion"].INPUT_TYPES()["required"]["file"][1]["options"]
    os.remove(path)


def test_motion_of_other_weights(pack, run_node, vid2vid, saved, load):
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    tiny.vid2vid_file(pack, folder / "tiny5.safetensors", num_kp=5)
    other = run_node("RealPortraitLoadVid2Vid", weights="tiny5.safetensors")[0]
    with refused(pack, "26 keypoints and this Face Vid2vid 5"):
        load(saved()[1], vid2vid=other)
    tiny.vid2vid_file(pack, folder / "tiny26b.safetensors", num_kp=26, motion_dims=(4, 8, 8, 24))
    other = run_node("RealPortraitLoadVid2Vid", weights="tiny26b.safetensors")[0]
    with refused(pack, "Other Face Vid2vid weights extracted the motion .fingerprint"):
        load(saved()[1], vid2vid=other)


def test_a_converted_template(pack, maps, load, vid2vid, caplog):
    """Without canonical keypoints, points and fingerprint: it drives, and the report says what is not known."""
    import folder_paths

    driving_motion = pack("realportrait_core.animation.driving_motion")
    motion = pack("realportrait_core.vid2vid.retarget").MotionParameters(
        torch.eye(3).repeat(4, 1, 1), 0.1 * torch.randn(4, 26, 3), torch.ones(4, 1), torch.zeros(4, 3)
    )
    driver = driving_motion.DrivingMotion(
        motion=motion,
        canonical=None,
        points=None,
        crop=torch.eye(3, dtype=torch.float64),
        present=torch.ones(4, dtype=torch.bool),
        size=(512, 512),
        fps=20.0,
        encoder="",
    )
    folder = Path(folder_paths.get_input_directory())
    pack("realportrait_core.motion_file").save_motion(folder / "template.safetensors", driver)
    joined, preview, fps, report = load("template.safetensors")
    assert fps == 20 and "holds no face points" in report and "does not name the Face Vid2vid" in report
    assert "does not name the Face Vid2vid" in caplog.text
    made, _, _ = maps(joined, neutral_frame=-1)
    assert len(made.maps) == 4 and torch.isfinite(made.maps.f).all() and made.maps.mask().flatten(1).any(1).all()
    assert preview.shape == (4, 384, 768, 3)

"""Animate Long Video and the nodes of its state, in the host's process, on tiny random networks."""

import gc
import shutil
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
import yunet
from refusal import refused

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 18  # two clips
SETTINGS = dict(
    seed=5,
    steps=2,
    sampler_name="euler",
    scheduler="normal",
    speed="exact",
    strength=1.0,
    guidance=1.0,
    result="whole portrait",
    pose_gain=1.0,
    expression_gain=1.0,
    framing="auto",
    neutral_frame=0,
    overlap=1,
    tail_window=1,
)
DETECTED = dict(portrait_face="largest", driver_face="largest", missing_face="hold")
SAMPLED = ("seed", "steps", "sampler_name", "scheduler", "speed", "strength", "guidance")


def pictures(frames, height=160, width=150, seed=3):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def weights(pack):
    """Tiny files in models/realportrait, as a user would put them there."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.dit_file(pack, folder / "long_dit.safetensors", input_sq_size=64)
    tiny.vid2vid_file(pack, folder / "long_vid2vid.safetensors")
    return folder


@pytest.fixture(scope="module")
def vae(pack):
    import comfy.sd

    return comfy.sd.VAE(sd=tiny.vae_state(pack))


@pytest.fixture
def model(run_node, weights):
    return run_node("RealPortraitLoadModel", weights="long_dit.safetensors", weight_dtype="default")[0]


@pytest.fixture(scope="module")
def vid2vid(host, weights):
    with torch.inference_mode():
        return host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"].execute(weights="long_vid2vid.safetensors").result[0]


@pytest.fixture
def runs(host) -> Path:
    """The folder of the runs, without those of other tests."""
    import folder_paths

    folder = Path(folder_paths.get_output_directory()) / "realportrait_long"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture
def video():
    """A VIDEO of frames in memory, with a tone."""
    from comfy_api.latest import InputImpl, Types

    def make(frames=FRAMES, fps=Fraction(25, 2)):
        tone = torch.sin(torch.arange(round(frames / fps * 16000)) * (2 * torch.pi * 440 / 16000))
        audio = {"waveform": 0.5 * tone[None, None], "sample_rate": 16000}
        return InputImpl.VideoFromComponents(
            Types.VideoComponents(images=pictures(frames, 120, 110, seed=4), audio=audio, frame_rate=fps)
        )

    return make


@pytest.fixture(scope="module")
def kept() -> dict:
    """What more than one test needs."""
    return {}


@pytest.fixture
def keypoints(run_node, vid2vid, kept):
    """keypoints(frames), made once for all tests."""

    def run(frames=FRAMES):
        if ("keypoints", frames) not in kept:
            kept["keypoints", frames] = extracted(frames)
        return kept["keypoints", frames]

    def extracted(frames):
        given = dict(vid2vid=vid2vid, portrait=pictures(1), driver=pictures(frames, 120, 110, seed=4))
        boxes = tiny.EXTRACTION | {"portrait_box": "50, 40, 40, 45"}  # a small face, so that 'auto' and 'whole' differ
        return run_node("RealPortraitExtractKeypoints", **given, **boxes)[0]

    return run


@pytest.fixture
def written(pack, monkeypatch) -> list[torch.Tensor]:
    """The frames of each clip that is written, before they are encoded."""
    folder, found = pack("realportrait_core.long.folder").RunFolder, []
    add = folder.add

    def recorded(self, frames, done):
        found.append(frames.clone())
        return add(self, frames, done)

    monkeypatch.setattr(folder, "add", recorded)
    return found


@pytest.fixture
def animate(host, run_node, vid2vid, model, vae, keypoints, video, runs):
    """animate(seed=6, ...) -> video, state, report. Of both networks, and keypoints by given boxes."""

    def run(**changes):
        frames = changes.pop("frames", FRAMES)
        given = dict(portrait=pictures(1), driving_video=video(frames), vid2vid=vid2vid, model=model, vae=vae)
        if "keypoints" not in changes:
            given["keypoints"] = keypoints(frames)
        return run_node("RealPortraitAnimateLong", **given | SETTINGS | changes)

    return run


def frames_of(video) -> torch.Tensor:
    return video.get_components().images


def by_the_graph(run_node, host, vid2vid, model, vae, keypoints, result, **changes) -> torch.Tensor:
    """The same by the other nodes."""
    motion = run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="auto")[0]
    if model is None:
        shown = "portrait" if result == "whole portrait" else "face crop"
        return run_node("RealPortraitRenderVid2Vid", vid2vid=vid2vid, motion=motion, result=shown)[0]
    given = {name: SETTINGS[name] for name in SAMPLED} | changes
    latent = run_node("RealPortraitSampler", model=model, vae=vae, motion=motion, **given)[0]
    (frames,) = host.NODE_CLASS_MAPPINGS["VAEDecode"]().decode(vae, latent)
    if result == "animated square":
        return frames
    return run_node("RealPortraitPasteBack", frames=frames, motion=motion, feather=8.0, length="longest")[0]


# ---- Animate Long Video ----


@pytest.mark.parametrize(
    "renderer, result, frames",
    [
        ("RealPortrait", "whole portrait", 33),  # three clips, the last of two new frames
        ("RealPortrait", "animated square", FRAMES),
        ("Face Vid2vid", "whole portrait", FRAMES),
        ("Face Vid2vid", "animated square", FRAMES),
    ],
)
def test_the_frames_are_those_of_the_graph(
    host, run_node, animate, vid2vid, model, vae, keypoints, written, renderer, result, frames
):
    """Bit by bit, before they are encoded."""
    model, vae = (model, vae) if renderer == "RealPortrait" else (None, None)
    animate(frames=frames, model=model, vae=vae, result=result)
    wanted = by_the_graph(run_node, host, vid2vid, model, vae, keypoints(frames), result)
    assert len(written) == (3 if frames == 33 else 2)
    assert torch.equal(torch.cat(written), wanted)


def test_the_video_has_rate_and_sound_and_is_copied_by_save_video(host, animate, runs, tmp_path):
    """A file in the output folder, which the host remuxes: what is decoded of the copy is the same."""
    import av

    video, state, report = animate()
    path = Path(video.get_stream_source())
    assert path.parent.parent == runs and path.name == "video.mp4" and len(path.parent.name) == 12
    parts = video.get_components()
    assert parts.images.shape == (FRAMES, 160, 150, 3) and parts.frame_rate == Fraction(25, 2)
    assert parts.audio["sample_rate"] == 16000 and parts.audio["waveform"].shape[-1] / 16000 == pytest.approx(
        FRAMES / 12.5, abs=0.1
    )
    video.save_to(str(tmp_path / "copy.mp4"))
    with av.open(str(path)) as own, av.open(str(tmp_path / "copy.mp4")) as copy:
        packets = [[bytes(packet) for packet in file.demux(video=0) if packet.size] for file in (own, copy)]
    assert packets[0] == packets[1] and len(packets[0]) == FRAMES
    assert (state.clip, state.frame, state.frames) == (2, FRAMES, FRAMES)
    assert f"{FRAMES} frames in 2 clips" in report and "2 steps of euler with normal" in report


def test_a_video_whose_file_was_deleted_is_made_again(host, animate, runs):
    """The host keeps the VIDEO, and runs the node again where its fingerprint, of the widgets alone, has changed."""
    gone = lambda: host.NODE_CLASS_MAPPINGS["RealPortraitAnimateLong"].fingerprint_inputs(**SETTINGS)
    before = gone()
    video = animate()[0]
    path = Path(video.get_stream_source())
    assert gone() == before and str(path) not in before
    shutil.rmtree(path.parent)
    assert str(path) in gone()
    assert animate()[0].get_stream_source() == str(path) and path.is_file() and str(path) not in gone()
    shutil.rmtree(path.parent)
    del video
    gc.collect()
    assert str(path) not in gone(), "nobody has it any more"


def test_the_node_shows_frames_and_the_report(host, animate, vid2vid, model, vae, keypoints, video, runs):
    given = dict(portrait=pictures(1), driving_video=video(), vid2vid=vid2vid, model=model, vae=vae, keypoints=keypoints())
    done = host.NODE_CLASS_MAPPINGS["RealPortraitAnimateLong"].execute(**given | SETTINGS)
    assert done.ui["text"] == (done.result[2],)
    (picture,) = done.ui["images"]
    assert picture["type"] == "temp" and picture["filename"].endswith(".png")


@pytest.fixture
def detecting(pack, monkeypatch):
    """The real face detector is where the nodes look for it."""
    detector = str(yunet.onnx())
    monkeypatch.setattr(pack("nodes.host.folders").folder_paths, "get_full_path", lambda folder, name: detector)


PART = dict(start=3.0, start_in="frames", frames=18, stride=1, fps=0.0, longest_side=200)


@pytest.mark.parametrize("by", ["Load Video", "Stream Driving Video"])
def test_a_file_is_read_frame_by_frame(pack, run_node, vid2vid, model, vae, runs, written, detecting, monkeypatch, by):
    """As Load Driving Video and the other nodes have it, but the host never loads its frames."""
    from comfy_api.latest import InputImpl

    file = ROOT / "tests" / "data" / "800000.mp4"
    video, frames = InputImpl.VideoFromFile(str(file)), 24
    if by == "Stream Driving Video":
        video, frames = run_node("RealPortraitStreamDrivingVideo", file="(the video input)", video=video, **PART)[0], 18
    driver = video.get_components().images
    found = run_node("RealPortraitExtractKeypoints", vid2vid=vid2vid, portrait=driver[:1], driver=driver, **DETECTED)[0]
    given = dict(portrait=driver[:1], vid2vid=vid2vid, model=model, vae=vae)
    run_node("RealPortraitAnimateLong", driving_video=video, keypoints=found, **given, **SETTINGS)
    wanted = torch.cat(written)
    written.clear()
    shutil.rmtree(runs)
    for kind in (InputImpl.VideoFromFile, pack("nodes.stream").StreamedVideo):
        monkeypatch.setattr(kind, "get_components", lambda self: pytest.fail("all frames at once"))
    out, _, report = run_node("RealPortraitAnimateLong", driving_video=video, **given, **SETTINGS)
    assert torch.equal(torch.cat(written), wanted) and len(wanted) == frames
    assert f"Face found in {frames} of {frames} frames." in report and out.get_frame_rate() == Fraction(25, 2)


CHANGES = [
    ("seed", 6, 3),
    ("steps", 1, 3),
    ("sampler_name", "euler_ancestral", 3),
    ("scheduler", "sgm_uniform", 3),
    ("speed", "fast", 3),
    ("strength", 0.5, 3),
    ("guidance", 2.0, 3),
    ("pose_gain", 0.0, 3),
    ("expression_gain", 0.0, 3),
    ("framing", "whole", 3),
    ("neutral_frame", 2, 3),
    ("overlap", 3, FRAMES),
]


@pytest.fixture
def plain(animate, written, kept, request):
    """plain(frames): the frames at SETTINGS, made once for all tests, and once for each input that deaf.py silences."""

    def run(frames):
        key = "plain", frames, getattr(request.node, "callspec", None) and request.node.callspec.params.get("deaf_to")
        if key not in kept:
            animate(frames=frames)
            kept[key] = torch.cat(written)
            written.clear()
        return kept[key]

    return run


@pytest.mark.parametrize("name, value, frames", CHANGES, ids=[name for name, _, _ in CHANGES])
def test_every_setting_changes_the_frames(animate, written, plain, name, value, frames):
    """And leads to a run of its own."""
    before = plain(frames)
    animate(**{name: value}, frames=frames)
    after = torch.cat(written)
    assert after.shape == before.shape and not torch.equal(after, before)


def test_the_tail_is_chosen_in_a_window(animate):
    """How, is tested in the core."""
    assert animate(tail_window=4)[1].settings["tail_window"] == "4"


def test_what_it_refuses(pack, animate):
    with refused(pack, "need a VAE to become pictures. Connect one to vae: A VAE of Stable Diffusion 1.5"):
        animate(vae=None)
    with refused(pack, "result is 'both'; it must be one of: whole portrait, animated square"):
        animate(result="both")
    with refused(pack, "sampler_name is 'eular'; it must be one of"):
        animate(sampler_name="eular", steps=2)
    for name in ("strength", "pose_gain", "expression_gain"):  # NaN passes the host's check of least and most
        with refused(pack, f"{name} is nan; it must be a finite number"):
            animate(**{name: float("nan")})
    with refused(pack, "portrait is 140x160 px; the motion was made for one of 150x160 px"):
        animate(portrait=pictures(1, width=140))


# ---- going on ----


class Stop:
    """A bar that asks for the host's interrupt at a step, and writes down what it is told."""

    def __init__(self, monkeypatch, at: int | None):
        import comfy.model_management as management

        self.ticks = ticks = []

        class Bar:
            def __init__(self, total):
                pass

            def update_absolute(self, done, total=None, preview=None):
                ticks.append((done, total))
                if done == at:
                    management.interrupt_current_processing()

        monkeypatch.setattr("comfy.utils.ProgressBar", Bar)


def test_a_cancelled_run_goes_on(animate, keypoints, written, runs, monkeypatch):
    """Stopped within a step of the second of two clips: the first is kept, and queued again the other one is made."""
    import comfy.model_management as management

    given = dict(steps=3, keypoints=keypoints())
    animate(**given)
    wanted, whole = torch.cat(written), frames_of(animate(**given)[0])
    assert len(written) == 2, "a finished run renders nothing when it is queued again"
    shutil.rmtree(runs)
    written.clear()

    bar = Stop(monkeypatch, at=5)
    with pytest.raises(management.InterruptProcessingException):
        animate(**given)
    assert bar.ticks == [(n, 6) for n in range(1, 6)] and len(written) == 1
    bar = Stop(monkeypatch, at=None)
    video, _, report = animate(**given)
    assert bar.ticks == [(n, 6) for n in range(4, 7)] and len(written) == 2
    assert torch.equal(torch.cat(written), wanted) and torch.equal(frames_of(video), whole)
    assert "Taken up again at frame 16" in report
    assert [path.name for path in runs.iterdir()] == [Path(video.get_stream_source()).parent.name]


def test_face_vid2vid_alone_can_be_cancelled_within_a_clip(animate, keypoints, written, monkeypatch):
    """After the clip before, which is kept; the bar goes over all frames."""
    import comfy.model_management as management

    given = dict(model=None, vae=None, keypoints=keypoints())
    bar = Stop(monkeypatch, at=17)
    with pytest.raises(management.InterruptProcessingException):
        animate(**given)
    assert bar.ticks == [(n, FRAMES) for n in range(1, 18)] and len(written) == 1
    bar = Stop(monkeypatch, at=None)
    animate(**given)
    assert bar.ticks == [(n, FRAMES) for n in (17, 18)] and len(written) == 2


def test_a_patched_model_is_known_by_its_patches(pack, host, model, run_node):
    """A LoRA that is loaded once more has the same fingerprint, another one and another strength have not."""
    fingerprint = pack("nodes.host.fingerprint").of_model
    key = next(key for key in model.model.state_dict() if key.endswith("attn.qkv.weight"))
    shape = model.model.state_dict()[key].shape

    def patched(strength=1.0, seed=0):
        draw = torch.Generator().manual_seed(seed)
        other = model.clone()
        other.add_patches({key: (torch.randn(shape, generator=draw),)}, strength)
        return other

    plain, once, again = fingerprint(model), patched(), patched()
    assert once.patches_uuid != again.patches_uuid and fingerprint(once) == fingerprint(again)
    assert len({plain, fingerprint(once), fingerprint(patched(0.5)), fingerprint(patched(seed=1))}) == 4
    reloaded = run_node("RealPortraitLoadModel", weights="long_dit.safetensors", weight_dtype="default")[0]
    assert fingerprint(reloaded) == plain
    import comfy.model_management as management

    management.load_models_gpu([once])  # its patches are now in the weights that all of them share
    assert fingerprint(model) == plain and fingerprint(once) == fingerprint(again)


def test_fingerprints_see_the_arguments_of_a_partial_function(pack):
    """Many packs patch a model with one."""
    digest = pack("nodes.host.fingerprint").digest
    found = {digest(partial(print, *given, **named)) for given, named in (((), {}), ((1,), {}), ((2,), {}), ((), {"end": "1"}))}
    assert len(found) == 4 and digest(partial(print, 1)) in found


# ---- states ----


@pytest.fixture(scope="module")
def saved(host, pack):
    """A state of another run in the output folder, so that the menu is not empty."""
    import folder_paths

    core = pack("realportrait_core.long.state")
    path = Path(folder_paths.get_output_directory()) / "state" / "other_00001_.safetensors"
    path.parent.mkdir(exist_ok=True)
    core.save_state(path, core.ContinuationState(1, 16, 40, 7, {"steps": "4"}, {"vid2vid": "0123456789abcdef"}))
    return "state/other_00001_.safetensors [output]"


def test_a_state_is_saved_and_found(host, run_node, animate, saved, runs):
    """Under the output folder, by the host's rules; with what the menu offers it is told what comes next."""
    node = host.NODE_CLASS_MAPPINGS["RealPortraitLoadState"]
    state = animate()[1]
    (name,) = run_node("RealPortraitSaveState", state=state, filename_prefix="state/mine")
    assert name == "state/mine_00001_.safetensors"
    assert run_node("RealPortraitSaveState", state=state, filename_prefix="state/mine") == ("state/mine_00002_.safetensors",)
    offered = node.INPUT_TYPES()["required"]["file"][1]["options"]
    assert saved in offered and f"{name} [output]" in offered
    assert not [other for other in offered if "realportrait_long" in other], "its run is finished"
    found, text = run_node("RealPortraitLoadState", file=f"{name} [output]")
    assert (found.clip, found.frame, found.settings) == (2, FRAMES, state.settings) and torch.equal(found.latents, state.latents)
    assert f"All {FRAMES} frames are done, in 2 clips. Seed 5; " in text and state.fingerprints["transformer"] in text
    assert "16 of 40 frames are done: clip 1 comes next. Seed 7; steps 4." in run_node("RealPortraitLoadState", file=saved)[1]


def test_a_state_of_the_same_driving_video_goes_on_with_its_run(host, run_node, animate, keypoints, written, runs, monkeypatch):
    """An unfinished run is on the menu. Its state leads to its folder; where that is gone, the rest is made alone."""
    import comfy.model_management as management

    given = dict(keypoints=keypoints())
    animate(**given)
    wanted = list(written)
    shutil.rmtree(runs)
    written.clear()
    with monkeypatch.context() as stopped:
        Stop(stopped, at=3)
        with pytest.raises(management.InterruptProcessingException):
            animate(**given)
    (run,) = runs.iterdir()
    node, name = host.NODE_CLASS_MAPPINGS["RealPortraitLoadState"], f"realportrait_long/{run.name}/state.safetensors [output]"
    assert name in node.INPUT_TYPES()["required"]["file"][1]["options"]
    before = node.fingerprint_inputs(file=name)
    state = run_node("RealPortraitLoadState", file=name)[0]
    assert state.frame == 16
    video, _, report = animate(**given, state=state)
    assert len(written) == 2 and "Taken up again at frame 16" in report and len(frames_of(video)) == FRAMES
    assert node.fingerprint_inputs(file=name) != before
    shutil.rmtree(runs)
    written.clear()
    video, _, report = animate(**given, state=state)
    assert torch.equal(written[0], wanted[1]) and len(frames_of(video)) == 2
    assert "Continues another run after its clip 0, from driving frame 16 on." in report


def test_another_driving_video_begins_with_the_states_last_frame(animate, written, plain):
    before, state = plain(FRAMES), animate()[1]
    written.clear()
    video, after, report = animate(frames=4, state=state)
    assert len(frames_of(video)) == 4 and after.clip == 3 and "Continues another run after its clip 1" in report
    assert not torch.equal(written[0], before[:4])


def test_a_state_of_another_animation_is_refused(pack, animate, runs):
    """With both values named."""
    state = animate()[1]
    with refused(pack, "seed 5 there and 6 here"):
        animate(state=state, seed=6)
    with refused(pack, "sampler euler/normal there and euler_ancestral/normal here; guidance 1 there and 2 here"):
        animate(state=state, sampler_name="euler_ancestral", guidance=2.0)
    here = r"[0-9a-f]{16}"
    with refused(pack, f"portrait {here} there and {here} here"):
        animate(state=state, portrait=pictures(1, seed=9))


OUTSIDE = [
    "../../outside.safetensors [output]",
    "/etc/passwd",
    "state/other_00001_.safetensors",
    "no such [output]",
    "",
    "\0 [output]",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_only_states_of_the_output_folder_are_opened(host, pack, run_node, saved, name):
    import folder_paths

    output = Path(folder_paths.get_output_directory())
    shutil.copy(output / "state" / "other_00001_.safetensors", output.parents[1] / "outside.safetensors")
    said = host.NODE_CLASS_MAPPINGS["RealPortraitLoadState"].validate_inputs(file=name)
    assert isinstance(said, str) and "is not one of the continuation states in" in said
    with refused(pack, "is not one of the continuation states in"):
        run_node("RealPortraitLoadState", file=name)
    with refused(pack, "cannot begin the name of a file below the output folder"):
        run_node("RealPortraitSaveState", state=run_node("RealPortraitLoadState", file=saved)[0], filename_prefix="../../x")

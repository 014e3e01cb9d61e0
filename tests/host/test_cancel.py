"""Cancelled in each stage: within one chunk or step, and the next run equals one that nothing went before, bit for bit."""

import threading
import time
from contextlib import contextmanager, suppress

import pytest
import tiny
import torch
import yunet
from safetensors.torch import save

CHUNK = 8  # frames
FRAMES = 17


class Nodes:
    """All stages on networks of their own, as after a start of the host."""

    def __init__(self, pack, run_node, vae):
        from pathlib import Path

        import folder_paths

        folder = Path(folder_paths.models_dir) / "realportrait"
        folder.mkdir(exist_ok=True)
        tiny.dit_file(pack, folder / "tiny_dit.safetensors"), tiny.vid2vid_file(pack, folder / "tiny_vid2vid.safetensors")
        self.run, self.vae = run_node, vae
        self.model = run_node("RealPortraitLoadModel", weights="tiny_dit.safetensors", weight_dtype="default")[0]
        self.vid2vid = run_node("RealPortraitLoadVid2Vid", weights="tiny_vid2vid.safetensors")[0]
        generator = torch.Generator().manual_seed(3)
        self.portrait = torch.rand(1, 160, 150, 3, generator=generator)
        self.driver = torch.rand(FRAMES, 120, 110, 3, generator=generator)

    def keypoints(self):
        given = dict(vid2vid=self.vid2vid, portrait=self.portrait, driver=self.driver)
        return self.run("RealPortraitExtractKeypoints", **given, **tiny.EXTRACTION)[0]

    def motion(self, keypoints):
        return self.run("RealPortraitMotionMaps", vid2vid=self.vid2vid, keypoints=keypoints, framing="auto", **tiny.RELATIVE)[0]

    def latents(self, motion):
        settings = dict(seed=5, steps=3, sampler_name="euler_ancestral", scheduler="normal", strength=1.0, guidance=1.5)
        return self.run("RealPortraitSampler", model=self.model, vae=self.vae, motion=motion, **settings)[0]["samples"]

    def rendered(self, motion):
        return self.run("RealPortraitRenderVid2Vid", vid2vid=self.vid2vid, motion=motion, result="portrait")[0]

    def decoded(self, latents):
        return self.vae.decode(latents)

    def pasted(self, motion, frames):
        return self.run("RealPortraitPasteBack", frames=frames, motion=motion, feather=8.0, length="longest")[0]


@pytest.fixture
def start(pack, run_node):
    """Networks of their own, each time."""
    import comfy.sd

    return lambda: Nodes(pack, run_node, comfy.sd.VAE(sd=tiny.vae_state(pack)))


def content(value) -> bytes:
    """Every tensor of a result."""
    if isinstance(value, torch.Tensor):
        return save({"": value.contiguous()})
    return b"".join(content(part) for part in vars(value).values() if isinstance(part, torch.Tensor) or hasattr(part, "__dict__"))


# The bar of the keypoints gives its first half to the face's track: M's first chunk of 8 moves it to (17 + 8) / 2.
@pytest.mark.parametrize(
    "stage, at, last", [("keypoints", 9, 12), ("motion", 8, 8), ("latents", 1, 1), ("latents", 4, 4), ("rendered", 2, 2)]
)
def test_the_next_run_equals_a_fresh_one(start, cancelled, stage, at, last):
    def through(nodes):
        """The stage's input, and its work."""
        if stage == "keypoints":
            return nodes.keypoints
        keypoints = nodes.keypoints()
        if stage == "motion":
            return lambda: nodes.motion(keypoints)
        motion = nodes.motion(keypoints)
        return lambda: getattr(nodes, stage)(motion)

    wanted = content(through(start())())
    work = through(start())
    assert cancelled(work, at)[-1][0] == last, "not one chunk, step or frame more"
    assert content(work()) == wanted


def test_paste(start, cancelled):
    nodes = start()
    motion = nodes.motion(nodes.keypoints())
    frames = nodes.decoded(nodes.latents(motion))
    wanted = nodes.pasted(motion, frames)
    assert cancelled(lambda: nodes.pasted(motion, frames), CHUNK)[-1][0] == CHUNK
    assert torch.equal(nodes.pasted(motion, frames), wanted)


def test_cancelled_while_frames_are_detected(start, cancelled, pack, monkeypatch):
    """The detector's stage comes before the poses'; on frames without a face its error would come only after all of them."""
    from test_nodes import rendered

    nodes, detector = start(), str(yunet.onnx())
    monkeypatch.setattr(pack("nodes.host.folders").folder_paths, "get_full_path", lambda folder, name: detector)
    nodes.portrait, nodes.driver = rendered(800000, 2)[:1], rendered(800000, 12)
    boxes = dict(portrait_box="", driver_box="")

    def work():
        given = dict(vid2vid=nodes.vid2vid, portrait=nodes.portrait, driver=nodes.driver)
        return nodes.run("RealPortraitExtractKeypoints", **given, **{**tiny.EXTRACTION, **boxes})[0]

    wanted = content(work())
    assert cancelled(work, 1)[-1][0] <= CHUNK
    assert content(work()) == wanted


@contextmanager
def hanging_decoder():
    """Stops the first process that decodes before it has sent a frame, and then presses the button."""
    import comfy.model_management as management
    import leftovers
    import psutil

    hangs, over = [], threading.Event()

    def stop_and_press():
        while not hangs and not over.is_set():
            for decoder in leftovers.decoders():
                with suppress(psutil.NoSuchProcess):
                    decoder.suspend()
                    while decoder.status() != psutil.STATUS_STOPPED:
                        time.sleep(0.005)
                    hangs.append(decoder.pid)
                    management.interrupt_current_processing(True)
            time.sleep(0.005)

    thread = threading.Thread(target=stop_and_press)
    with leftovers.nothing_left():
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            management.interrupt_current_processing(False)
    assert len(hangs) == 1


@pytest.mark.parametrize("node", ["RealPortraitLoadDrivingVideo", "RealPortraitExtractKeypoints", "RealPortraitAnimateLong"])
def test_cancelled_while_a_decoder_hangs(host, start, run_node, node):
    """No frame comes, and so no bar moves: only the wait for the next frame can end."""
    import comfy.model_management as management
    from comfy_api.latest import InputImpl
    from test_long_nodes import SETTINGS
    from test_video_nodes import ALL, SOCKET

    video, nodes = InputImpl.VideoFromFile(str(yunet.ROOT / "tests" / "data" / "800000.mp4")), start()
    given = dict(vid2vid=nodes.vid2vid, portrait=nodes.portrait)
    inputs = {
        "RealPortraitLoadDrivingVideo": dict(file=SOCKET, video=video, **ALL),
        "RealPortraitExtractKeypoints": dict(driver=video, **given, **tiny.EXTRACTION),
        "RealPortraitAnimateLong": dict(driving_video=video, **given, **SETTINGS),
    }[node]
    with hanging_decoder(), pytest.raises(management.InterruptProcessingException):
        run_node(node, **inputs)
    assert len(run_node("RealPortraitLoadDrivingVideo", file=SOCKET, video=video, **ALL)[0]) == 24, "the next one is read as ever"

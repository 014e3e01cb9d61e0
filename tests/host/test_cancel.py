"""Cancelled in each stage: within one chunk or step, and the next run equals one that nothing went before, bit for bit."""

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


@pytest.fixture
def cancelled(host):
    """cancelled(work, at): runs it, presses the button when the bar reaches `at`, and returns where the bar was last."""
    import comfy.model_management as management
    import comfy.utils

    def run(work, at):
        ticks = []

        def hook(value, total, preview, node_id=None):
            ticks.append(value)
            if value >= at:
                management.interrupt_current_processing(True)

        comfy.utils.set_progress_bar_global_hook(hook)
        try:
            with pytest.raises(management.InterruptProcessingException):
                work()
        finally:
            comfy.utils.set_progress_bar_global_hook(None)
            management.interrupt_current_processing(False)
        return ticks[-1]

    return run


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
    assert cancelled(work, at) == last, "not one chunk, step or frame more"
    assert content(work()) == wanted


def test_paste(start, cancelled):
    nodes = start()
    motion = nodes.motion(nodes.keypoints())
    frames = nodes.decoded(nodes.latents(motion))
    wanted = nodes.pasted(motion, frames)
    assert cancelled(lambda: nodes.pasted(motion, frames), CHUNK) == CHUNK
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
    assert cancelled(work, 1) <= CHUNK
    assert content(work()) == wanted

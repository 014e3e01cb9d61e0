"""Render Face Vid2vid and the precisions of Load Face Vid2vid, in the host's process, on random weights in both layouts."""

import shutil
from dataclasses import replace
from pathlib import Path

import public
import pytest
import tiny
import torch
from refusal import refused
from shown import on_the_node

HEIGHT, WIDTH, FRAMES = 301, 253, 6


@pytest.fixture(scope="module")
def folder(host, pack):
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.vid2vid_file(pack, folder / "tiny_g.safetensors", upscale=2)
    return folder


@pytest.fixture
def load(run_node, folder):
    return lambda **changes: run_node("RealPortraitLoadVid2Vid", **{"weights": "tiny_g.safetensors", **changes})[0]


@pytest.fixture
def vid2vid(load):
    return load()


def pictures(frames, height=HEIGHT, width=WIDTH, seed=3):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def motion(run_node):
    def run(vid2vid, **changes):
        given = dict(vid2vid=vid2vid, portrait=pictures(1), driver=pictures(FRAMES, 120, 110, seed=4))
        keypoints = run_node("RealPortraitExtractKeypoints", **given, **tiny.EXTRACTION)[0]
        g = torch.Generator().manual_seed(5)
        moved = replace(keypoints.driver, expression=0.3 * torch.randn(keypoints.driver.expression.shape, generator=g))
        keypoints = replace(keypoints, driver=moved, **changes)
        return run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="auto")[0]

    return run


@pytest.fixture
def render(run_node):
    return lambda vid2vid, motion, result="portrait", **changes: run_node(
        "RealPortraitRenderVid2Vid", vid2vid=vid2vid, motion=motion, result=result, **changes
    )


def test_the_face_moves_in_the_portrait(render, vid2vid, motion):
    made = motion(vid2vid)
    images, mask = render(vid2vid, made)
    assert images.shape == (FRAMES, HEIGHT, WIDTH, 3) and mask.shape == (1, HEIGHT, WIDTH) and images.dtype == torch.float32
    outside = mask[0] == 0
    assert torch.equal(images[:, outside], pictures(1)[:, outside].expand(FRAMES, -1, -1)) and outside.any()
    assert 0 <= images.min() and images.max() <= 1 and float((images[0] - pictures(1)[0]).abs().max()) > 0.1
    assert float(images.std(0).max()) > 1e-3


def test_the_bare_crop_is_the_generators_picture(render, vid2vid, motion):
    """At G's own size, twice the side that it would have without its pixel shuffle; with the mask by which it would be pasted."""
    made = motion(vid2vid)
    images, mask = render(vid2vid, made, "face crop")
    wanted = vid2vid.model.generator(made.maps.f.float()).movedim(1, -1)
    assert images.shape == (FRAMES, 64, 64, 3) and mask.shape == (1, 64, 64)
    assert float((images - wanted).abs().max()) < 1e-5
    assert mask[0, 0].max() < 0.2 and mask[0, 16:-16, 16:-16].min() == 1


def test_another_picture_under_the_face(pack, render, vid2vid, motion):
    """Frames with another face animated, of which the last one is held; not a picture of another size."""
    made, other = motion(vid2vid), pictures(4, seed=8)
    images, mask = render(vid2vid, made, portrait=other)
    for i, frame in enumerate(images):
        assert torch.equal(frame[mask[0] == 0], other[min(i, 3)][mask[0] == 0])
    with refused(pack, f"portrait is {WIDTH}x100 px; the motion was made for one of {WIDTH}x{HEIGHT} px"):
        render(vid2vid, made, portrait=other[:, :100])


def test_an_even_size_can_be_saved(render, vid2vid, motion):
    made = motion(vid2vid)
    whole, even = render(vid2vid, made), render(vid2vid, made, even_size=True)
    for a, b in zip(whole, even):
        assert b.shape[1:3] == (HEIGHT - 1, WIDTH - 1) and torch.equal(a[:, : HEIGHT - 1, : WIDTH - 1], b)


def test_the_node_shows_frames_of_the_animation(host, vid2vid, motion):
    result = host.NODE_CLASS_MAPPINGS["RealPortraitRenderVid2Vid"].execute(vid2vid, motion(vid2vid), "face crop")
    shown = on_the_node(result)
    images = result.result[0]
    assert shown.shape == (2 * 64 + 4, 3 * 64 + 8, 3)
    assert float((shown[:64, :64] - images[0]).abs().max()) < 0.01 and float((shown[68:, 136:] - images[5]).abs().max()) < 0.01


def test_progress_and_cancel_within_the_frames(host, render, vid2vid, motion, monkeypatch):
    """The host's interrupt is looked at after every frame on a CPU."""
    import comfy.model_management as management

    made, ticks = motion(vid2vid), []

    class Bar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, done, total=None, preview=None):
            ticks.append((done, total))
            if done == 2:
                management.interrupt_current_processing()

    monkeypatch.setattr("comfy.utils.ProgressBar", Bar)
    with pytest.raises(management.InterruptProcessingException):
        render(vid2vid, made)
    assert ticks == [(1, FRAMES), (2, FRAMES)]


def test_what_cannot_be_rendered(pack, render, load, folder, motion):
    """No generator, a motion of other weights, a result that the menu has not, no room."""
    vid2vid = load()
    made = motion(vid2vid)
    checkpoint = pack("realportrait_core.checkpoint")
    state, metadata = checkpoint.read_safetensors(folder / "tiny_g.safetensors")
    without = {key: value for key, value in state.items() if not key.startswith("generator.")}
    checkpoint.save(folder / "without_g.safetensors", without, metadata)
    with refused(pack, "no generator.*spade_generator.safetensors .222 MB., from Kijai.*put it beside", "WeightsError"):
        render(load(weights="without_g.safetensors"), made)
    tiny.vid2vid_file(pack, folder / "tiny_g8.safetensors", warped_channels=8)
    with refused(pack, "Other Face Vid2vid weights made this motion"):
        render(load(weights="tiny_g8.safetensors"), made)
    with refused(pack, "result is 'both'; it must be one of: portrait, face crop"):
        render(vid2vid, made, "both")


@pytest.fixture
def parts(folder):
    """A folder of LivePortrait's files, which a menu would name to other tests."""
    yield folder / "parts"
    shutil.rmtree(folder / "parts")


def test_a_file_that_is_added_is_loaded_at_the_next_run(host, pack, run_node, parts):
    """LivePortrait's generator, put beside the other three after the error said so."""
    sizes = pack("realportrait_core.config").Vid2VidConfig(**vars(public.TINY) | dict(crop_size=256))
    torch.manual_seed(0)
    network = pack("realportrait_core.vid2vid").FaceVid2Vid(sizes).eval()
    public.write_kijai(parts, network)
    node, chosen = host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"], "parts/motion_extractor.safetensors"
    generator = parts / "spade_generator.safetensors"
    whole = node.fingerprint_inputs(weights=chosen)
    content = generator.read_bytes()
    generator.unlink()
    assert node.fingerprint_inputs(weights=chosen, weight_dtype="fp16") != whole
    assert run_node("RealPortraitLoadVid2Vid", weights=chosen)[0].model.generator is None
    generator.write_bytes(content)
    assert node.fingerprint_inputs(weights=chosen) != whole  # of another time
    assert run_node("RealPortraitLoadVid2Vid", weights=chosen)[0].model.generator is not None


def test_the_precision_of_the_weights(pack, load, motion, render):
    """fp32 by default on a CPU. In half precision the poses stay as they are, and the picture nearly."""
    motion_fingerprint = pack("realportrait_core.vid2vid.checkpoint").motion_fingerprint
    exact = load()
    dtypes = {name: load(weight_dtype=name).model for name in ("default", "fp32", "fp16", "bf16")}
    for name, wanted in (("default", torch.float32), ("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        for part in ("appearance", "warping", "generator"):
            assert {p.dtype for p in getattr(dtypes[name], part).parameters()} == {wanted}, (name, part)
        assert {p.dtype for p in dtypes[name].motion.parameters()} == {torch.float32}
    assert len({motion_fingerprint(network) for network in dtypes.values()}) == 1
    wanted, _ = render(exact, motion(exact))
    for name, bound in (("fp16", 0.02), ("bf16", 0.1)):
        low = load(weight_dtype=name)
        found, _ = render(low, motion(low))
        assert found.dtype == torch.float32 and 0 < float((found - wanted).abs().max()) < bound
    with refused(pack, "weight_dtype is 'fp4'"):
        load(weight_dtype="fp4")

"""Out of memory in the host: smaller pieces, then other models go, then the weights make room; the result stays."""

import logging

import pytest
import tiny
import torch
from refusal import refused
from test_host_nonfinite import sample_clip  # noqa: F401
from test_model import clip, model, sample  # noqa: F401

CLOSE = 1e-3
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture(autouse=True)
def told(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]


def largest(a, b) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture
def fails(host, monkeypatch):
    """fails(owner, name, times): the function runs out of memory in its first calls. Returns a list with an entry per call."""

    def make(owner, name, times):
        usual, calls = getattr(owner, name), []

        def full(*given, **named):
            calls.append(1)
            if len(calls) <= times:
                raise torch.OutOfMemoryError(FULL)
            return usual(*given, **named)

        monkeypatch.setattr(owner, name, full)
        return calls

    return make


def test_attention_by_queries(pack, model, sample_clip, monkeypatch, told):  # noqa: F811
    """The host's attention where at most 4 queries fit: 16 tokens a frame, 16 frames a clip."""
    whole, module, attempts = sample_clip(model), pack("nodes.host.model"), []
    usual = module.attention_pytorch

    def few(q, *given, **named):
        attempts.append(q.shape[-2])
        if q.shape[-2] > 4:
            raise torch.OutOfMemoryError(FULL)
        return usual(q, *given, **named)

    monkeypatch.setattr(module, "attention_pytorch", few)
    model.model.diffusion_model.references.clear()
    found = sample_clip(model)
    assert attempts.count(16) == 1 and attempts.count(8) == 1 and len(told()) == 2, "once for the whole run"
    assert "Attention of the transformer: out of memory with 1 part for all queries, going on with 2." == told()[0]
    assert largest(found, whole) <= CLOSE


def test_stock_samplers_have_the_ladder_too(pack, model, clip, fails, told):  # noqa: F811
    whole = sample(model, *clip[:2])
    model.model.diffusion_model.references.clear()
    fails(pack("nodes.host.model"), "attention_pytorch", 1)
    assert largest(sample(model, *clip[:2]), whole) <= CLOSE and len(told()) == 1


def test_the_motion_mapper_by_frames(model, sample_clip, fails, told):  # noqa: F811
    whole = sample_clip(model)
    calls = fails(model.model.diffusion_model, "encode_motion", 2)
    assert largest(sample_clip(model), whole) <= CLOSE
    assert told() == [f"Motion mapper: out of memory with {n} frames at once, going on with {n // 2}." for n in (16, 8)]
    assert len(calls) == 2 + 4


def test_the_weights_make_room(pack, model, sample_clip, fails, told, monkeypatch):  # noqa: F811
    """Where a step does not fit at all: everything is unloaded, and the host is asked to keep more memory free."""
    import comfy.model_management as management

    whole, asked = sample_clip(model), []
    usual = management.load_models_gpu
    monkeypatch.setattr(management, "load_models_gpu", lambda *a, **k: asked.append(k["memory_required"]) or usual(*a, **k))
    calls = fails(model.model.diffusion_model.final_layer, "forward", 1)
    found = sample_clip(model)
    assert torch.equal(found, whole) and len(calls) == 1 + 2 * 3, "with guidance, two a step"
    assert len(asked) == 2 and asked[1] > 2 * asked[0], "for the second attempt, more room"
    assert told() == [f"Sampling: out of memory ({FULL}). Unloading all models, and keeping room for 4 times the step."]
    assert torch.equal(sample_clip(model), whole), "the MODEL itself is as it was"


def test_what_never_fits_ends_in_a_sentence(pack, model, sample_clip, fails):  # noqa: F811
    calls = fails(model.model.diffusion_model.final_layer, "forward", 100)
    with refused(
        pack, "Sampling: out of memory even with all other models unloaded .*Start ComfyUI with --lowvram", "InsufficientMemory"
    ):
        sample_clip(model)
    assert len(calls) == 2


def test_an_interrupt_is_no_lack_of_memory(pack, model, sample_clip, monkeypatch):  # noqa: F811
    import comfy.model_management as management

    def stop(*given):
        raise management.InterruptProcessingException

    monkeypatch.setattr(model.model.diffusion_model.final_layer, "forward", stop)
    with pytest.raises(management.InterruptProcessingException):
        sample_clip(model)


# ---- Face Vid2vid ----


@pytest.fixture
def vid2vid(pack, run_node, host):
    from pathlib import Path

    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.vid2vid_file(pack, folder / "tiny_vid2vid.safetensors")
    return run_node("RealPortraitLoadVid2Vid", weights="tiny_vid2vid.safetensors")[0]


@pytest.fixture
def motion_of(run_node, vid2vid):
    def run(frames):
        generator = torch.Generator().manual_seed(3)
        portrait, driver = torch.rand(1, 160, 150, 3, generator=generator), torch.rand(frames, 120, 110, 3, generator=generator)
        keypoints = run_node("RealPortraitExtractKeypoints", vid2vid=vid2vid, portrait=portrait, driver=driver, **tiny.EXTRACTION)[
            0
        ]
        return run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, framing="auto", **tiny.RELATIVE)[0]

    return run


def test_maps_and_poses_by_frames(vid2vid, motion_of, fails, told):
    whole = motion_of(9)
    fails(vid2vid.model.warping, "forward", 1)
    found = motion_of(9)
    assert largest(found.maps.f.float(), whole.maps.f.float()) <= CLOSE
    assert told() == ["Motion maps: out of memory with 8 frames at once, going on with 4."]


def test_the_last_step_unloads_other_models(run_node, pack, model, vid2vid, motion_of, clip, fails, told):  # noqa: F811
    import comfy.model_management as management

    motion = motion_of(2)
    sample(model, *clip[:2])  # so that it is loaded
    whole = run_node("RealPortraitRenderVid2Vid", vid2vid=vid2vid, motion=motion, result="portrait")[0]
    loaded = [entry.model for entry in management.current_loaded_models]
    assert any(entry is model for entry in loaded) and any(entry is vid2vid for entry in loaded)
    fails(vid2vid.model.generator, "forward", 1)
    found = run_node("RealPortraitRenderVid2Vid", vid2vid=vid2vid, motion=motion, result="portrait")[0]
    assert torch.equal(found, whole)
    left = [entry.model for entry in management.current_loaded_models]
    assert not any(entry is model for entry in left) and any(entry is vid2vid for entry in left)
    assert len(told()) == 1 and "Face Vid2vid's generator: out of memory with 1 frame at once. Unloaded " in told()[0]


def test_a_generator_that_never_fits_ends_in_a_sentence(run_node, pack, vid2vid, motion_of, fails):
    motion = motion_of(2)
    fails(vid2vid.model.generator, "forward", 100)
    with refused(pack, "Face Vid2vid's generator: out of memory even with 1 frame at once", "InsufficientMemory"):
        run_node("RealPortraitRenderVid2Vid", vid2vid=vid2vid, motion=motion, result="portrait")

"""Nothing of one prompt is left in the next: whatever ran before, was cancelled, failed or was freed, a prompt gives what it gives
on a host that has just started, bit for bit. By the host's own executor, with its cache. tests/server/test_load.py has clients.
"""

import gc
import json
from pathlib import Path

import prompts
import pytest
import tiny
import torch

VID2VID, MODEL = "concurrency_vid2vid.safetensors", "concurrency.safetensors"
DECODED, RENDERED, EDITED = "10", "rendered", "edited"
STAGES = ("RealPortraitLoadModel", "RealPortraitExtractKeypoints", "RealPortraitMotionMaps", "RealPortraitSampler", "VAEDecode")
BOXES = {"portrait_box": "60, 60, 120, 140", "driver_box": "60, 60, 120, 140"}


@pytest.fixture(scope="module")
def weights(host, pack) -> Path:
    """Toy networks in the host's own folder, so that the whole line takes a second."""
    import folder_paths

    prompts.load_extras(host)
    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.dit_file(pack, folder / MODEL)
    tiny.vid2vid_file(pack, folder / VID2VID, num_kp=26)
    return folder


def prompt(seed=1, portrait="example: portrait.png", frames=5, yaw=5.0, weights=MODEL, prefix="a", motion=None) -> dict:
    """The quick start with all three ways to a picture: sampled in two clips, rendered by Face Vid2vid, and one expression."""
    made = prompts.workflow("animate_portrait", frames=frames, steps=2, seed=seed)
    by_type = {entry["class_type"]: entry["inputs"] for entry in made.values()}
    by_type["RealPortraitLoadPortrait"]["image"] = portrait
    by_type["RealPortraitLoadModel"]["weights"] = weights
    by_type["RealPortraitLoadVid2Vid"]["weights"] = VID2VID
    by_type["RealPortraitExtractKeypoints"].update(BOXES)
    by_type["RealPortraitMotionMaps"].update(motion or {})
    by_type["SaveVideo"]["filename_prefix"] = f"concurrency/{prefix}"
    render = {"vid2vid": ["5", 0], "motion": ["8", 0], "result": "face crop", "even_size": True}
    sliders = dict(yaw=yaw, pitch=0.0, roll=0.0, smile=0.5, mouth=0.0, eyes=0.0, gaze_x=0.0, gaze_y=0.0, live_preview=False)
    sliders |= dict(vid2vid=["5", 0], portrait=["1", 0], portrait_face="largest", portrait_box=BOXES["portrait_box"])
    made[RENDERED] = {"class_type": "RealPortraitRenderVid2Vid", "inputs": render}
    made[EDITED] = {"class_type": "RealPortraitEditExpression", "inputs": sliders}
    for node in (RENDERED, EDITED):
        made[f"{node} shown"] = {"class_type": "PreviewImage", "inputs": {"images": [node, 0]}}
    return made


def pictures(executor, **settings) -> list[torch.Tensor]:
    ended = executor.run(prompt(**settings))
    assert ended.status == "success", ended.said
    return [executor.output(node).clone() for node in (DECODED, RENDERED, EDITED)]


def started_again(host):
    """As after a restart: no cached output, no model, nothing kept by weights that are gone."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    gc.collect()
    return prompts.Executor(host)


@pytest.fixture(scope="module")
def fresh(host, weights) -> list[torch.Tensor]:
    with torch.inference_mode():
        return pictures(started_again(host))


@pytest.fixture
def executor(host, weights):
    return started_again(host)


def same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_host_that_was_started_again(host, executor, fresh):
    assert [len(one) for one in fresh] == [5, 5, 1]
    assert same(pictures(executor), fresh)


def test_other_prompts_before_it(executor, fresh):
    """Of another seed, portrait, length and expression; they differ from it, so that a mix-up would show."""
    for changed in (dict(seed=2), dict(portrait="example: two_faces.jpg"), dict(frames=3), dict(yaw=-9.0)):
        assert not same(pictures(executor, **changed), fresh) if "frames" not in changed else pictures(executor, **changed)
    assert same(pictures(executor), fresh)
    other = pictures(executor, seed=2)
    assert same(pictures(executor), fresh) and same(pictures(executor, seed=2), other)


def test_it_again_out_of_the_hosts_cache(executor, fresh):
    """Nothing that is cached was changed by what used it."""
    pictures(executor)
    ended = executor.run(prompt(prefix="b"))
    assert {DECODED, RENDERED, EDITED} <= ended.cached and ended.status == "success"
    assert same([executor.output(node) for node in (DECODED, RENDERED, EDITED)], fresh)
    cached = executor.run(prompt(seed=3)).cached
    assert {"7", "8"} <= cached and DECODED not in cached  # the motion is reused by another seed
    cached = executor.run(prompt(motion={"mode": "paper-absolute", "pose_gain": 0.5})).cached
    assert "7" in cached and "8" not in cached  # the keypoints by another motion
    assert same(pictures(executor), fresh)


def test_models_freed_between_all_nodes(host, executor, fresh):
    """As another pack, or the host short of memory, does: each node finds the weights unloaded."""
    import comfy.model_management

    freed = []

    def free(event: str, data: dict) -> None:
        if event == "executing" and data.get("node"):
            freed.append(len(comfy.model_management.current_loaded_models))
            comfy.model_management.unload_all_models()

    ended = executor.run(prompt(), free)
    assert ended.status == "success", ended.said
    assert max(freed) >= 1, "there must have been a model to free"
    assert same([executor.output(node) for node in (DECODED, RENDERED, EDITED)], fresh)
    assert same(pictures(executor), fresh)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_in_a_stage_before_it(host, executor, fresh, stage):
    """Then the same executor, with what it had cached by then."""
    wanted = prompt(seed=7)
    (node,) = [node for node, entry in wanted.items() if entry["class_type"] == stage]

    def cancel(event: str, data: dict) -> None:
        if event == "executing" and data.get("node") == node:
            host.interrupt_processing(True)

    assert executor.run(wanted, cancel).status == "interrupted"
    assert same(pictures(executor), fresh)


@pytest.mark.parametrize("stage", ["RealPortraitExtractKeypoints", "RealPortraitSampler"])
def test_cancelled_in_the_middle_of_a_stage_before_it(host, executor, fresh, stage, monkeypatch):
    """At its first tick of progress, as the host's own server sees them."""
    import comfy.utils

    wanted = prompt(seed=8, portrait="example: two_faces.jpg")
    (node,) = [node for node, entry in wanted.items() if entry["class_type"] == stage]
    ticks = []

    def tick(value, total, preview=None, node_id=None) -> None:
        if executor.listener.last_node_id == node and not ticks:
            ticks.append(value)
            host.interrupt_processing(True)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", tick)
    assert executor.run(wanted).status == "interrupted" and len(ticks) == 1
    assert same(pictures(executor), fresh)


def test_failed_prompts_before_it(pack, executor, fresh, weights):
    (weights / "truncated.safetensors").write_bytes((weights / MODEL).read_bytes()[:3000])
    assert executor.run(prompt(weights="truncated.safetensors")).status == "error"
    small = prompt(seed=9)
    small["7"]["inputs"]["portrait_box"] = "1, 2, 3"
    ended = executor.run(small)
    assert ended.status == "error" and "four numbers" in ended.said
    assert same(pictures(executor), fresh)


@pytest.mark.slow
def test_other_weights_under_the_same_name(pack, executor, fresh, weights):
    """The file is looked at again, and what was kept of the old weights is not used."""
    pictures(executor)
    old = (weights / VID2VID).read_bytes()
    try:
        tiny.vid2vid_file(pack, weights / VID2VID, num_kp=21)
        assert not same(pictures(executor)[1:], fresh[1:])
    finally:
        (weights / VID2VID).write_bytes(old)
    assert same(pictures(executor), fresh)


def test_runs_leave_the_modules_as_they_were(host, pack, executor, fresh):
    """Every container that a module of the pack has: the same object, as long as before."""
    import sys

    package = pack("nodes").__name__.rpartition(".")[0]

    def state() -> dict[str, tuple[int, int]]:
        modules = [module for name, module in list(sys.modules.items()) if name.startswith(package)]
        return {
            f"{module.__name__}.{name}": (id(value), len(value))
            for module in modules
            for name, value in vars(module).items()
            if isinstance(value, (list, dict, set)) and not name.startswith("__")
        }

    before = state()
    pictures(executor, seed=4)
    pictures(executor, portrait="example: two_faces.jpg")
    after = state()
    assert len(before) > 50 and {name: after[name] for name in before} == before
    assert json.dumps(prompt()) == json.dumps(prompt())

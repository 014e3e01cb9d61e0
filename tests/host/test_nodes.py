"""The nodes one after the other, in the host's process, on tiny random networks: shapes, rules, refusals, cancelling."""

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
import yunet
from refusal import refused
from shown import cells, on_the_node

OURS = [
    "RealPortraitLoadModel",
    "RealPortraitLoadVid2Vid",
    "RealPortraitExtractKeypoints",
    "RealPortraitEditMotion",
    "RealPortraitMotionMaps",
    "RealPortraitConditioning",
    "RealPortraitSampler",
    "RealPortraitContinueClip",
    "RealPortraitLoadDrivingVideo",
    "RealPortraitStreamDrivingVideo",
    "RealPortraitPasteBack",
    "RealPortraitInspect",
    "RealPortraitSaveMotion",
    "RealPortraitLoadMotion",
    "RealPortraitSigmas",
    "RealPortraitIDDPMSampler",
    "RealPortraitLoadStitching",
    "RealPortraitStitch",
    "RealPortraitEditExpression",
    "RealPortraitRenderVid2Vid",
    "RealPortraitLive",
    "RealPortraitAnimate",
    "RealPortraitLoadPortrait",
    "RealPortraitJudge",
    "RealPortraitAnimateLong",
    "RealPortraitSaveState",
    "RealPortraitLoadState",
]
PORTRAIT_BOX, DRIVER_BOX = "40, 40, 80, 90", "30 30 60 70"
SETTINGS = {"seed": 5, "steps": 2, "sampler_name": "euler", "scheduler": "normal", "strength": 1.0, "guidance": 1.0}


@pytest.fixture(scope="module")
def weights(pack):
    """Tiny files in models/realportrait, as a user would put them there."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.dit_file(pack, folder / "tiny_dit.safetensors", input_sq_size=64)
    tiny.vid2vid_file(pack, folder / "tiny_vid2vid.safetensors")
    return folder


@pytest.fixture(scope="module")
def vae(pack):
    import comfy.sd

    return comfy.sd.VAE(sd=tiny.vae_state(pack))


@pytest.fixture
def model(run_node, weights):
    return run_node("RealPortraitLoadModel", weights="tiny_dit.safetensors", weight_dtype="default")[0]


@pytest.fixture
def vid2vid(run_node, weights):
    return run_node("RealPortraitLoadVid2Vid", weights="tiny_vid2vid.safetensors")[0]


def picture(frames, height=160, width=150, channels=3, seed=3):
    return torch.rand(frames, height, width, channels, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def extract(run_node, vid2vid):
    def run(portrait=None, driver=None, **changes):
        given = {
            "vid2vid": vid2vid,
            "portrait": picture(1) if portrait is None else portrait,
            "driver": picture(3, 120, 110) if driver is None else driver,
            "portrait_face": "largest",
            "driver_face": "largest",
            "missing_face": "hold",
            "portrait_box": PORTRAIT_BOX,
            "driver_box": DRIVER_BOX,
        }
        return run_node("RealPortraitExtractKeypoints", **{**given, **changes})

    return run


@pytest.fixture
def motion_of(run_node, vid2vid, extract):
    def run(frames, **changes):
        given = {"mode": "relative", "pose_gain": 1.0, "expression_gain": 1.0, "neutral_frame": 0, "framing": "auto"}
        keypoints = extract(driver=picture(frames, 120, 110))[0]
        return run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **{**given, **changes})[0]

    return run


# ---- what the menu shows ----


@pytest.mark.parametrize("node_id", OURS)
def test_every_input_and_output_explains_itself(host, node_id):
    info = host.NODE_CLASS_MAPPINGS[node_id].GET_NODE_INFO_V1()
    assert info["category"] == "RealPortrait" and info["description"] and info["display_name"]
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    assert inputs or node_id == "RealPortraitIDDPMSampler"
    assert [name for name, (_, options) in inputs.items() if not options.get("tooltip")] == []
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])


@pytest.mark.parametrize("node_id", OURS)
def test_every_node_has_a_help_page(host, node_id):
    """The frontend asks for docs/<node id>.md below the pack's web folder; each input and output is explained by the name that is
    shown, and an input with another name in API workflows by that too.
    """
    folder = Path(host.EXTENSION_WEB_DIRS[Path(__file__).resolve().parents[2].name], "docs")
    page, schema = (folder / f"{node_id}.md").read_text(encoding="utf-8"), host.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA()
    assert page.startswith(f"# {schema.display_name}\n")
    names = [part.display_name or part.id for part in schema.inputs] + [part.display_name for part in schema.outputs]
    assert [name for name in names if f"**{name}**" not in page] == []
    assert [part.id for part in schema.inputs if part.display_name not in (None, part.id) and f"`{part.id}`" not in page] == []


def test_the_pack_has_these_nodes_and_no_others(host):
    assert [name for name in host.NODE_CLASS_MAPPINGS if name.startswith("RealPortrait")] == OURS


@pytest.fixture
def load_as(host, tmp_path, monkeypatch):
    """load_as(name): the host loads the pack once more, from a folder of that name."""

    def run(name: str) -> None:
        folder = tmp_path / name
        folder.symlink_to(Path(__file__).resolve().parents[2], target_is_directory=True)
        for table in ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "EXTENSION_WEB_DIRS", "LOADED_MODULE_DIRS"):
            monkeypatch.setattr(host, table, {})
        assert asyncio.run(host.load_custom_node(str(folder)))

    return run


def test_the_packs_folder_may_have_any_name(host, load_as):
    name = "ComfyUI-real portrait.v2 (1)"
    load_as(name)
    assert list(host.NODE_CLASS_MAPPINGS) == OURS
    assert Path(host.EXTENSION_WEB_DIRS[name], "docs", f"{OURS[0]}.md").is_file()


def test_the_hosts_start_is_not_held_up(host):
    """Of what takes time at start there is none: packages that the host has not imported itself, files of weights, memory."""
    script = Path(__file__).resolve().parent / "start.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout.splitlines()[-1])
    assert taken["packages"] == [] and taken["large_files"] == []
    assert taken["bytes"] < 20e6  # 4 MB are the code itself, more where it is compiled first


def test_folders(host, pack, weights):
    """The bundled weights come first, and the host's own VAE loader looks into the pack."""
    import folder_paths

    folders = pack("nodes.host.folders")
    assert folder_paths.get_folder_paths("realportrait")[0] == str(weights)
    assert str(folders.WEIGHTS / "vae") in folder_paths.get_folder_paths("vae")
    names = folders.model_names()
    assert "tiny_dit.safetensors" in names and folders.BUNDLED_VID2VID not in names
    if (folders.WEIGHTS / "realportrait" / folders.BUNDLED_MODEL).is_file():
        assert names[0] == folders.BUNDLED_MODEL and folders.vid2vid_names()[0] == folders.BUNDLED_VID2VID


@pytest.mark.parametrize("name", ["../../outside.safetensors", "/etc/passwd", "tiny_dit.safetensors\0", "no such file", ""])
def test_only_offered_files_are_opened(host, pack, run_node, weights, name):
    (weights.parents[1] / "outside.safetensors").write_bytes(b"")
    for node in ("RealPortraitLoadModel", "RealPortraitLoadVid2Vid"):
        said = host.NODE_CLASS_MAPPINGS[node].validate_inputs(weights=name)
        assert isinstance(said, str) and "is not one of the" in said and str(weights) in said
    with refused(pack, "is not one of the", "WeightsError"):
        run_node("RealPortraitLoadModel", weights=name, weight_dtype="default")


def test_loaders_tell_the_licence_of_each_file(host, pack, run_node, weights, tmp_path):
    """Behind the outputs that were there before, where links of older workflows point, and in the prompt's history."""
    node = host.NODE_CLASS_MAPPINGS["RealPortraitLoadModel"]
    assert tuple(node.RETURN_TYPES) == ("MODEL", "STRING") and tuple(node.RETURN_NAMES) == ("model", "info")
    node = host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"]
    assert tuple(node.RETURN_TYPES) == ("REALPORTRAIT_VID2VID", "STRING", "REALPORTRAIT_STITCHING")
    assert tuple(node.RETURN_NAMES) == ("vid2vid", "info", "stitching")

    info = run_node("RealPortraitLoadModel", weights="tiny_dit.safetensors", weight_dtype="default")[1]
    assert info.startswith("tiny_dit.safetensors: a RealPortrait diffusion transformer. Licence: the file states none")
    result = node.execute(weights="tiny_vid2vid.safetensors")
    assert result.result[1].startswith("tiny_vid2vid.safetensors: a Face Vid2vid bundle. Licence: ")
    assert result.ui.as_dict() == {"text": (result.result[1],)}
    folders = pack("nodes.host.folders")
    if (folders.WEIGHTS / "realportrait" / folders.BUNDLED_VID2VID).is_file():
        assert "Licence: Apache-2.0" in run_node("RealPortraitLoadVid2Vid", weights=folders.BUNDLED_VID2VID)[1]


def test_liveportraits_files_are_listed_with_their_licence(pack, run_node, weights):
    """Chosen by any one of them; every file that was read has its line."""
    core = pack("realportrait_core.vid2vid.checkpoint")
    network = core.load_vid2vid(weights / "tiny_vid2vid.safetensors")
    names = {"appearance": "f.safetensors", "motion": "m.safetensors", "warping": "w.safetensors"}
    (weights / "lp").mkdir()
    for part, name in names.items():
        state = {key: value.clone() for key, value in getattr(network, part).state_dict().items()}
        pack("realportrait_core.checkpoint").save(weights / "lp" / name, state, {})
    lines = run_node("RealPortraitLoadVid2Vid", weights="lp/m.safetensors")[1].split("\n")
    assert sorted(line.split(":")[0] for line in lines) == sorted(names.values())
    assert all("Licence: MIT, where they are LivePortrait's own weights" in line for line in lines)


def test_the_wrong_file_in_a_slot(pack, run_node, weights):
    with refused(pack, "looks like a Face Vid2vid bundle", "WeightsError"):
        run_node("RealPortraitLoadModel", weights="tiny_vid2vid.safetensors", weight_dtype="default")
    with refused(pack, "looks like a RealPortrait diffusion transformer", "WeightsError"):
        run_node("RealPortraitLoadVid2Vid", weights="tiny_dit.safetensors")


# ---- the flow ----


@pytest.mark.parametrize("frames", [1, 2, 16, 17, 33])
def test_as_many_frames_out_as_in(run_node, model, vae, motion_of, frames):
    motion = motion_of(frames)
    latent = run_node("RealPortraitSampler", model=model, vae=vae, portrait=picture(1), motion=motion, **SETTINGS)[0]
    assert latent["samples"].shape == (frames, 4, 8, 8)
    assert torch.isfinite(latent["samples"]).all() and "noise_mask" not in latent
    assert vae.decode(latent["samples"]).shape == (frames, 64, 64, 3)


def test_the_motion_brings_its_portrait(pack, run_node, model, vae, motion_of):
    """No wire is the picture that the keypoints were extracted from; another picture of its size is taken where it is connected."""
    motion, other = motion_of(2), picture(1, seed=9)

    def sampled(**wire):
        return run_node("RealPortraitSampler", model=model, vae=vae, motion=motion, **SETTINGS, **wire)[0]["samples"]

    def reference(**wire):
        positive, _, _ = run_node("RealPortraitConditioning", vae=vae, motion=motion, start_frame=0, frames=2, strength=1.0, **wire)
        return positive[0][1]["rp_reference"]

    for run in (sampled, reference):
        assert torch.equal(run(), run(portrait=picture(1))) and not torch.equal(run(), run(portrait=other))
    motion = replace(motion, keypoints=replace(motion.keypoints, picture=None))
    for run in (sampled, reference):
        with refused(pack, r"does not hold the picture of its portrait \(150x160 px\). Connect the portrait"):
            run()


def test_the_seed_after_the_last_is_0(host, run_node, model, vae, motion_of):
    """Of two clips the second draws with the seed after the first's."""
    motion, portrait = motion_of(31), picture(1)
    given = {**SETTINGS, "seed": 2**64 - 1, "steps": 1}
    ours = run_node("RealPortraitSampler", model=model, vae=vae, portrait=portrait, motion=motion, **given)[0]["samples"]
    positive, _, _ = run_node(
        "RealPortraitConditioning", vae=vae, portrait=portrait, motion=motion, start_frame=0, frames=16, strength=1.0
    )
    clip = run_node(
        "RealPortraitContinueClip",
        positive=positive,
        previous={"samples": ours[:16]},
        motion=motion,
        start_frame=15,
        frames=16,
        overlap=1,
    )
    second = host.NODE_CLASS_MAPPINGS["KSampler"]().sample(model, 0, 1, 1.0, "euler", "normal", *clip)[0]["samples"]
    assert torch.equal(second, ours[15:])


@pytest.mark.parametrize("sampler, guidance", [("euler", 1.0), ("euler", 2.0), ("uni_pc", 1.5), ("dpm_fast", 1.5)])
def test_our_sampler_is_the_stock_sampler_clip_by_clip(host, run_node, model, vae, motion_of, sampler, guidance):
    """31 frames are two whole clips: KSampler with Conditioning, then with Continue Clip, gives the same latents, its cfg
    being our guidance. Also under samplers that let known frames drift by themselves.
    """
    motion, portrait = motion_of(31), picture(1)
    given = {**SETTINGS, "sampler_name": sampler, "guidance": guidance}
    ours = run_node("RealPortraitSampler", model=model, vae=vae, portrait=portrait, motion=motion, **given)[0]["samples"]

    stock = host.NODE_CLASS_MAPPINGS["KSampler"]().sample
    positive, negative, latent = run_node(
        "RealPortraitConditioning", vae=vae, portrait=portrait, motion=motion, start_frame=0, frames=16, strength=1.0
    )
    (first,) = stock(model, 5, 2, guidance, sampler, "normal", positive, negative, latent)
    positive, negative, latent = run_node(
        "RealPortraitContinueClip", positive=positive, previous=first, motion=motion, start_frame=15, frames=16, overlap=1
    )
    assert torch.equal(latent["samples"][0], first["samples"][-1]) and not latent["noise_mask"][0].any()
    (second,) = stock(model, 6, 2, guidance, sampler, "normal", positive, negative, latent)
    assert torch.equal(second["samples"][0], first["samples"][-1])
    joined = torch.cat([first["samples"], second["samples"][1:]])
    assert torch.equal(joined, ours)


def test_motion_reaches_the_frames(run_node, model, vae, motion_of):
    """Gains of 0 are a still portrait: every map is the same, but for the last digit of fp16, as one frame of a batch may differ
    from another; gains of 1 are not. And strength 0 ends the difference.
    """
    moving, still = motion_of(4), motion_of(4, pose_gain=0.0, expression_gain=0.0)
    changes = [float((motion.maps.f[1:] - motion.maps.f[:1]).abs().max()) for motion in (still, moving)]
    assert changes[0] <= 1e-3 * float(still.maps.f.abs().max()) < changes[1]

    def run(motion, strength):
        given = {**SETTINGS, "strength": strength}
        return run_node("RealPortraitSampler", model=model, vae=vae, portrait=picture(1), motion=motion, **given)[0]["samples"]

    assert not torch.equal(run(moving, 1.0), run(still, 1.0))
    assert torch.equal(run(moving, 0.0), run(still, 0.0))


def test_previews(extract, run_node, vid2vid):
    keypoints, preview, report = extract(driver=picture(40, 120, 110))
    assert preview.shape == (32, 384, 768, 3) and 0 <= preview.min() and preview.max() <= 1
    assert "40 frames" in report
    _, maps, _ = run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="whole")
    assert maps.shape == (32, 64, 64, 3) and torch.isfinite(maps).all()
    assert maps.amax() > 0.5 and (maps[:, 0, 0] == 0).all()


@pytest.mark.parametrize(
    "frames, layout, chosen",
    [(40, (2, 3), [0, 10, 20, 29, 39]), (5, (2, 3), [0, 1, 2, 3, 4]), (3, (2, 3), [0, 1, 2]), (1, (1, 2), [0])],
)
def test_the_node_shows_the_portrait_and_frames_of_the_driver(host, vid2vid, frames, layout, chosen):
    """One small picture, whatever the length: each frame is told by its grey, among the drawn lines."""
    greys = torch.linspace(0.2, 0.9, frames)
    result = host.NODE_CLASS_MAPPINGS["RealPortraitExtractKeypoints"].execute(
        vid2vid,
        torch.full((1, 160, 150, 3), 0.1),
        greys.view(-1, 1, 1, 1).expand(-1, 120, 110, 3),
        "largest",
        "largest",
        "hold",
        PORTRAIT_BOX,
        DRIVER_BOX,
    )
    shown = on_the_node(result)
    assert shown.shape == (layout[0] * 196 - 4, layout[1] * 196 - 4, 3)
    found = torch.stack([cell.median() for cell in cells(shown, *layout)])
    empty = layout[0] * layout[1] - 1 - len(chosen)
    assert torch.allclose(found, torch.cat([torch.tensor([0.1]), greys[chosen], torch.zeros(empty)]), atol=0.005)
    assert all(cell.amax((0, 1)).sub(cell.median()).max() > 0.05 for cell in cells(shown, *layout)[: 1 + len(chosen)])


@pytest.mark.parametrize("frames, layout, chosen", [(40, (2, 3), [0, 6, 12, 19, 25, 31]), (2, (1, 2), [0, 1])])
def test_the_node_shows_maps_of_its_preview(host, vid2vid, extract, frames, layout, chosen):
    """Of the preview's frames, 32 at most, six."""
    result = host.NODE_CLASS_MAPPINGS["RealPortraitMotionMaps"].execute(
        vid2vid, extract(driver=picture(frames, 120, 110))[0], "relative", 1.0, 1.0, 0, "whole"
    )
    _, preview, _ = result.result
    assert preview.amax() > 0.5
    for cell, i in zip(cells(on_the_node(result), *layout), chosen, strict=True):
        assert (cell - preview[i].cpu()).abs().max() <= 1.01 / 255


def test_progress_counts_frames_and_steps(run_node, model, vae, motion_of, extract):
    import comfy.utils

    ticks = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: ticks.append((value, total)))
    try:
        motion = motion_of(20)
        assert ticks[-1] == (20, 20)
        ticks.clear()
        run_node("RealPortraitSampler", model=model, vae=vae, portrait=picture(1), motion=motion, **{**SETTINGS, "steps": 3})
        assert [tick for tick in ticks if tick[1] == 6] == [(i, 6) for i in range(1, 7)]
    finally:
        comfy.utils.set_progress_bar_global_hook(None)


@pytest.mark.parametrize("frames, steps, told", [(20, 3, ["20 frames in 2 clips of 3 steps: about "]), (10, 2, [])])
def test_the_log_says_how_long_it_will_take(run_node, model, vae, motion_of, caplog, frames, steps, told):
    """Once, after the second step; not where nothing is left then."""
    with caplog.at_level("INFO"):
        given = dict(model=model, vae=vae, portrait=picture(1), motion=motion_of(frames), **{**SETTINGS, "steps": steps})
        run_node("RealPortraitSampler", **given)
    lines = [record.getMessage() for record in caplog.records if " clips of " in record.getMessage()]
    assert [line[: len(start)] for line, start in zip(lines, told, strict=True)] == told
    assert all(line.endswith(" s left.") for line in lines)


def test_the_sampler_node_runs_the_loop_of_the_core(pack, run_node, model, vae, motion_of, monkeypatch):
    """20 frames are two clips; the second starts with the last latent of the first."""
    node, core = pack("nodes.sample"), pack("realportrait_core.animation.clips")
    clips, results = [], []

    def recorded(planned, denoise_clip):
        def one(clip, known):
            clips.append((clip, known))
            results.append(denoise_clip(clip, known))
            return results[-1]

        return core.denoise_clips(planned, one)

    monkeypatch.setattr(node, "denoise_clips", recorded)
    given = dict(model=model, vae=vae, portrait=picture(1), motion=motion_of(20), **{**SETTINGS, "steps": 2})
    samples = run_node("RealPortraitSampler", **given)[0]["samples"]
    assert [clip.new_frames for clip, _ in clips] == [range(0, 16), range(16, 20)]
    assert clips[0][1] is None and torch.equal(clips[1][1], results[0][15:])
    assert torch.equal(samples, torch.cat([results[0], results[1][1:5]]))


def test_speed_chooses_steps_sampler_and_caching(run_node, model, vae, motion_of):
    """20 frames are two clips; exact is what the other inputs say, and what a workflow without the input gets."""
    network = model.model.diffusion_model
    steps, controls = [], []
    network.final_layer.register_forward_hook(lambda *given: steps.append(1))
    network.controlnet[0].register_forward_hook(lambda *given: controls.append(1))
    motion = motion_of(20)

    def run(**changes):
        steps.clear(), controls.clear()
        given = dict(model=model, vae=vae, portrait=picture(1), motion=motion, **SETTINGS)
        samples = run_node("RealPortraitSampler", **{**given, **changes})[0]["samples"]
        return samples, len(steps), len(controls)

    exact, *counts = run(speed="exact", steps=3)
    assert counts == [6, 6] and torch.equal(run(steps=3)[0], exact)
    balanced, *counts = run(speed="balanced", steps=3, sampler_name="heun")
    assert counts == [20, 20]
    assert torch.equal(run(steps=10, sampler_name="dpmpp_2m", scheduler="sgm_uniform")[0], balanced)
    fast, *counts = run(speed="fast")
    assert counts == [16, 8] and torch.isfinite(fast).all()
    assert not torch.equal(fast, run(steps=8, sampler_name="dpmpp_2m", scheduler="sgm_uniform")[0])


@pytest.mark.parametrize(
    "given, said",
    [
        (("exact", 3, "heun", "normal"), "3 steps of heun with normal."),
        (("exact", 0, "heun", "normal"), "10 steps of euler with normal. Steps 0 .*: sampler_name, scheduler are not used."),
        (("balanced", 3, "heun", "normal"), "10 steps of dpmpp_2m with sgm_uniform. .*: steps, .* scheduler are not used."),
        (("fast", 0, "euler", "normal"), "8 steps of dpmpp_2m with sgm_uniform. Speed 'fast' sets these itself.*"),
    ],
)
def test_what_the_sampler_uses_is_told(host, pack, given, said):
    used = pack("nodes.sample").sampling(tiny.dit_config(pack), *given)
    assert re.fullmatch(said, used.report())


def test_the_sampler_tells_it_on_the_node(host, model, vae, motion_of):
    given = dict(model=model, vae=vae, portrait=picture(1), motion=motion_of(2), **{**SETTINGS, "steps": 1})
    output = host.NODE_CLASS_MAPPINGS["RealPortraitSampler"].execute(**given)
    assert output.ui.as_dict()["text"] == ("1 steps of euler with normal.",)


def test_distilled_weights_run_with_their_own_steps_only(pack, run_node, tmp_path, vae, motion_of, model, caplog):
    host = pack("nodes.host.model")
    distilled = host.load(tiny.dit_file(pack, tmp_path / "d.safetensors", distilled_steps=4), "fp32")
    given = dict(vae=vae, portrait=picture(1), motion=motion_of(4), **SETTINGS)

    def run(network, **changes):
        return run_node("RealPortraitSampler", model=network, **{**given, **changes})[0]["samples"]

    made = run(distilled, speed="distilled")
    assert torch.equal(run(distilled, steps=4, sampler_name="euler", scheduler="sgm_uniform"), made)
    # A graph made for other weights runs too, and the log says what was taken instead.
    assert torch.equal(run(distilled, steps=20, scheduler="normal"), made)
    assert "distilled for 4 steps with 'sgm_uniform': these are taken instead of 20 with 'normal'" in caplog.text
    with refused(pack, "distilled for 4 steps, and speed 'fast' takes others"):
        run(distilled, speed="fast")
    with refused(pack, "speed is 'distilled', and these weights are not"):
        run(model, speed="distilled")
    # The core's sampler visits the same noise levels.
    sampling, core = distilled.model.model_sampling, pack("realportrait_core.diffusion.schedule")
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(sampling, "sgm_uniform", 4)[:-1]
    ours = core.linear_schedule().trailing(4)
    torch.testing.assert_close(sampling.timestep(sigmas).long().flip(0), ours.timesteps, rtol=0, atol=1)


def test_fast_after_a_cancelled_run_is_as_if_nothing_had_been(run_node, model, vae, motion_of):
    import comfy.model_management as management
    import comfy.utils

    given = dict(model=model, vae=vae, portrait=picture(1), motion=motion_of(4), **SETTINGS, speed="fast")
    whole = run_node("RealPortraitSampler", **given)[0]["samples"]
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: management.interrupt_current_processing(value == 3)
    )
    try:
        with pytest.raises(management.InterruptProcessingException):
            run_node("RealPortraitSampler", **given)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)
    assert torch.equal(run_node("RealPortraitSampler", **given)[0]["samples"], whole)


def test_preview_shows_the_middle_frame(pack, model, monkeypatch):
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod

    monkeypatch.setattr(latent_preview.args, "preview_method", LatentPreviewMethod.Latent2RGB)
    x0 = torch.zeros(7, 4, 8, 8)
    x0[3] = 1
    form, image, _ = pack("nodes.host.run").preview_of_middle(model)(x0)
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    assert form == "JPEG" and image.tobytes() == previewer.decode_latent_to_preview(x0[3:4]).tobytes()
    monkeypatch.setattr(latent_preview.args, "preview_method", LatentPreviewMethod.NoPreviews)
    assert pack("nodes.host.run").preview_of_middle(model)(x0) is None


def test_cancel_within_a_step_and_go_on(run_node, model, vae, motion_of):
    """The host's interrupt ends the second step, and the next run is like one that nothing went before."""
    import comfy.model_management as management
    import comfy.utils

    motion = motion_of(20)
    given = dict(model=model, vae=vae, portrait=picture(1), motion=motion, **{**SETTINGS, "steps": 4})
    whole = run_node("RealPortraitSampler", **given)[0]["samples"]
    ticks = []

    def hook(value, total, preview, node_id=None):
        ticks.append(value)
        if value == 2:
            management.interrupt_current_processing(True)

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(management.InterruptProcessingException):
            run_node("RealPortraitSampler", **given)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)
    assert ticks[-1] == 2
    assert torch.equal(run_node("RealPortraitSampler", **given)[0]["samples"], whole)


# ---- every knob does what it says ----


def test_the_chosen_weights_are_loaded_in_the_chosen_precision(run_node, weights, pack):
    tiny.dit_file(pack, weights / "deeper.safetensors", depth=5)
    for name, depth in (("tiny_dit.safetensors", 4), ("deeper.safetensors", 5)):
        for weight_dtype, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
            blocks = run_node("RealPortraitLoadModel", weights=name, weight_dtype=weight_dtype)[0].model.diffusion_model.blocks
            assert len(blocks) == depth and blocks[0].attn.qkv.weight.dtype == dtype


@pytest.fixture
def detecting(pack, monkeypatch):
    """The real face detector is where the nodes look for it."""
    detector = str(yunet.onnx())
    monkeypatch.setattr(pack("nodes.host.folders").folder_paths, "get_full_path", lambda folder, name: detector)


def test_the_chosen_face_is_animated_and_followed(pack, extract, detecting):
    """Two heads beside each other, the right one larger, on both sides of the animation."""
    small = torch.nn.functional.pad(rendered(800000, 2)[:, ::2, ::2], (0, 0, 0, 0, 0, 128))
    both = torch.cat([small, rendered(810000, 2)], 2)  # (2, 256, 384, 3)
    given = {"portrait": both[:1], "driver": both, "portrait_box": "", "driver_box": ""}
    for face, right in (("1st from left", False), ("2nd from left", True), ("largest", True)):
        for side in ("portrait", "driver"):
            points = getattr(extract(**given, **{f"{side}_face": face})[0], f"{side}_points")
            assert bool((points[..., 0] > 128).all() if right else (points[..., 0] < 128).all())
    for side in ("portrait", "driver"):
        with refused(pack, "2 faces, where only one is allowed", "FaceError"):
            extract(**given, **{f"{side}_face": "the only one"})
        with refused(pack, "number 2 was asked for", "FaceError"):
            extract(**given, **{f"{side}_face": "3rd from left"})


def test_a_box_says_where_the_face_is(extract):
    """The points go along with the box by as much, on the side it is of."""
    plain = extract()[0]
    moved = extract(portrait_box="50, 43, 80, 90")[0]
    assert torch.allclose(moved.portrait_points - plain.portrait_points, torch.tensor([10.0, 3.0]), atol=1e-4)
    assert torch.equal(moved.driver_points, plain.driver_points) and not torch.equal(moved.feature, plain.feature)
    moved = extract(driver_box="33 35 60 70")[0]
    assert torch.allclose(moved.driver_points - plain.driver_points, torch.tensor([3.0, 5.0]), atol=1e-4)
    assert torch.equal(moved.portrait_points, plain.portrait_points)
    assert not torch.equal(moved.driver.expression, plain.driver.expression)


def test_what_is_done_where_the_face_is_missing(pack, extract, detecting):
    driver = rendered(800000, 6).clone()
    coarse = torch.nn.functional.adaptive_avg_pool2d(driver[[2, 3]].movedim(-1, 1), 6)  # no face is seen in it, and no cut
    driver[[2, 3]] = torch.nn.functional.interpolate(coarse, (256, 256), mode="bilinear").movedim(1, -1)
    found, reports = {}, {}
    for policy in ("hold", "interpolate", "fade"):
        found[policy], _, reports[policy] = extract(driver=driver, driver_box="", missing_face=policy)
        assert found[policy].present.tolist() == [True, True, False, False, True, True]
        scale, points = found[policy].driver.scale[:, 0], found[policy].driver_points
        if policy == "interpolate":
            ratio = scale[2:5] / scale[1:4]
            assert float(ratio.max() - ratio.min()) < 1e-5 and "frames 2-3: the pose is interpolated" in reports[policy]
            assert not torch.equal(points[2], points[3])
        else:
            assert (scale[1:4] == scale[1]).all()
    assert "the last pose is held" in reports["hold"] and "the motion fades out" in reports["fade"]
    assert found["hold"].motion_weight is None and found["fade"].motion_weight.tolist() == pytest.approx([1, 1, 0.8, 0.8, 1, 1])
    with refused(pack, "missing in 2 of the 6 driving frames: frames 2-3", "FaceError"):
        extract(driver=driver, driver_box="", missing_face="stop")


@pytest.mark.parametrize(
    "changes", [{"seed": 6}, {"steps": 2}, {"sampler_name": "heun"}, {"scheduler": "karras"}, {"guidance": 2.0}], ids=str
)
def test_every_setting_of_the_sampler_changes_the_frames(run_node, model, vae, motion_of, changes):
    given = dict(model=model, vae=vae, portrait=picture(1), motion=motion_of(2))
    settings = {**SETTINGS, "steps": 3}
    plain, again, other = (
        run_node("RealPortraitSampler", **given, **chosen)[0]["samples"] for chosen in (settings, settings, {**settings, **changes})
    )
    assert torch.equal(plain, again) and float((other - plain).abs().max()) > 1e-3


def test_an_old_workflow_that_names_refine_runs_with_even_steps(host, run_node, model, vae, motion_of, caplog):
    node = host.NODE_CLASS_MAPPINGS["RealPortraitSampler"]
    assert node.validate_inputs(scheduler="refine") is True and node.validate_inputs(scheduler="normal") is True
    assert "scheduler is 'odd'; it must be one of: " in node.validate_inputs(scheduler="odd")
    given = dict(model=model, vae=vae, portrait=picture(1), motion=motion_of(2), **SETTINGS)
    old = run_node("RealPortraitSampler", **{**given, "scheduler": "refine"})[0]["samples"]
    assert "'refine' is no longer offered" in caplog.text
    assert torch.equal(old, run_node("RealPortraitSampler", **given)[0]["samples"])


def test_guidance_calls_the_network_twice_and_reads_the_portrait_once(run_node, model, vae, motion_of):
    network = model.model.diffusion_model
    steps, controls, portraits = [], [], []
    hooks = [
        network.final_layer.register_forward_hook(lambda *given: steps.append(1)),
        network.controlnet[0].register_forward_hook(lambda *given: controls.append(1)),
        network.csize_embedder.register_forward_hook(lambda *given: portraits.append(1)),  # once a portrait, and in no step
    ]
    try:
        given = dict(model=model, vae=vae, portrait=picture(9), motion=motion_of(20), **{**SETTINGS, "steps": 3})
        samples = run_node("RealPortraitSampler", **{**given, "guidance": 1.5})[0]["samples"]
    finally:
        for hook in hooks:
            hook.remove()
    assert (len(steps), len(controls), len(portraits)) == (12, 6, 1)  # 2 clips of 3 steps; no motion, no control
    assert torch.isfinite(samples).all()


@pytest.mark.parametrize("guidance", [0.5, float("nan")])
def test_guidance_out_of_range_is_refused(pack, run_node, model, vae, motion_of, guidance):
    with refused(pack, "The guidance is .*; it must be finite, 1 \\(off\\) or more"):
        run_node(
            "RealPortraitSampler",
            model=model,
            vae=vae,
            portrait=picture(1),
            motion=motion_of(2),
            **{**SETTINGS, "guidance": guidance},
        )


def test_a_clip_is_of_the_frames_that_were_asked_for(run_node, vae, motion_of):
    motion = motion_of(18)
    given = {"vae": vae, "portrait": picture(1), "motion": motion}
    positive, negative, latent = run_node("RealPortraitConditioning", start_frame=3, frames=5, strength=0.7, **given)
    assert torch.equal(positive[0][1]["rp_motion"].f, motion.maps.f[3:8]) and latent["samples"].shape == (5, 4, 8, 8)
    assert positive[0][1]["rp_strength"] == 0.7 and negative[0][1]["rp_strength"] == 0

    previous = {"samples": tiny.latent(5)}
    given = {"positive": positive, "previous": previous, "motion": motion}
    positive, _, latent = run_node("RealPortraitContinueClip", start_frame=6, frames=7, overlap=2, **given)
    assert torch.equal(positive[0][1]["rp_motion"].f, motion.maps.f[6:13]) and positive[0][1]["rp_strength"] == 0.7
    assert latent["samples"].shape == (7, 4, 8, 8) and torch.equal(latent["samples"][:2], previous["samples"][-2:])
    assert latent["noise_mask"].flatten(1).amax(1).tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_the_strength_of_a_clip_steers_it(host, run_node, model, vae, motion_of):
    """Through the stock sampler: 0 is the picture without motion, whatever the motion."""

    def sample(strength, **gains):
        clip = run_node(
            "RealPortraitConditioning",
            vae=vae,
            portrait=picture(1),
            motion=motion_of(2, **gains),
            start_frame=0,
            frames=2,
            strength=strength,
        )
        return host.NODE_CLASS_MAPPINGS["KSampler"]().sample(model, 5, 2, 1.0, "euler", "normal", *clip)[0]["samples"]

    still = {"pose_gain": 0.0, "expression_gain": 0.0}
    assert torch.equal(sample(0.0), sample(0.0, **still)) and not torch.equal(sample(1.0), sample(1.0, **still))
    assert not torch.equal(sample(1.0), sample(0.5))


# ---- pictures as they come ----


@pytest.mark.parametrize("height, width", [(160, 150), (151, 163), (137, 300)])
def test_any_size(run_node, model, vae, extract, vid2vid, height, width):
    portrait = picture(1, height, width)
    keypoints = extract(portrait=portrait, driver=picture(2, 113, 97))[0]
    motion = run_node(
        "RealPortraitMotionMaps",
        vid2vid=vid2vid,
        keypoints=keypoints,
        mode="paper-absolute",
        pose_gain=1.0,
        expression_gain=1.0,
        neutral_frame=0,
        framing="auto",
    )[0]
    latent = run_node("RealPortraitSampler", model=model, vae=vae, portrait=portrait, motion=motion, **SETTINGS)[0]
    assert latent["samples"].shape == (2, 4, 8, 8)


def test_grey_and_rgba(pack):
    rgb = pack("nodes.host.images").rgb
    grey = picture(2, channels=1)
    assert torch.equal(rgb(grey, "driver"), grey.expand(-1, -1, -1, 3))
    rgba = picture(2, channels=4)
    rgba[..., 3] = 0
    assert torch.equal(rgb(rgba, "driver"), torch.ones(2, 160, 150, 3))
    rgba[..., 3] = 1
    assert torch.equal(rgb(rgba, "driver"), rgba[..., :3])
    assert rgb(rgba.half(), "driver").dtype == torch.float32
    assert rgb(picture(1) * 3 - 1, "driver").aminmax() == (0, 1)


def test_inputs_are_left_alone(run_node, model, vae, motion_of, extract):
    """The host caches them."""
    portrait, driver = picture(1), picture(3, 120, 110)
    kept = portrait.clone(), driver.clone()
    extract(portrait=portrait, driver=driver)
    motion = motion_of(18)
    maps = motion.maps.f.clone()
    run_node("RealPortraitSampler", model=model, vae=vae, portrait=portrait, motion=motion, **SETTINGS)
    assert torch.equal(portrait, kept[0]) and torch.equal(driver, kept[1]) and torch.equal(motion.maps.f, maps)


@pytest.mark.parametrize(
    "driver, match",
    [
        (torch.zeros(0, 120, 110, 3), "driving video has 0 frames"),
        (torch.full((2, 120, 110, 3), torch.nan), "2 of 2 frames of the driving video hold NaN"),
        (torch.zeros(2, 120, 110, 2), "driving video has 2 channels"),
        (torch.zeros(2, 12, 110, 3), "driving video is 110x12 px"),
        (torch.zeros(1, 2, 120, 110, 3), r"driving video must be an IMAGE \(frames"),
    ],
)
def test_refused_drivers(pack, extract, driver, match):
    with refused(pack, match):
        extract(driver=driver)


@pytest.mark.parametrize(
    "changes, match, kind",
    [
        ({"portrait_box": "left"}, "portrait_box is 'left'; it must be four numbers", "InputError"),
        ({"driver_box": "1, 2, 3"}, "driver_box is '1, 2, 3'", "InputError"),
        ({"driver_box": "100, 100, 80, 80"}, "not inside the picture of 110x120 px", "FaceError"),
        ({"driver_box": "nan 1 50 50"}, "four finite numbers", "InputError"),
        ({"driver_face": "biggest"}, "driver_face is 'biggest'; it must be one of: largest", "InputError"),
        ({"missing_face": "invent"}, "'hold', 'interpolate', 'fade' or 'stop'", "InputError"),
    ],
)
def test_refused_choices(pack, extract, changes, match, kind):
    with refused(pack, match, kind):
        extract(**changes)


def test_without_a_detector_a_box_is_asked_for(pack, extract, monkeypatch, tmp_path):
    folders = pack("nodes.host.folders")
    monkeypatch.setattr(folders.folder_paths, "get_full_path", lambda folder, name: None)
    with refused(pack, r"missing: looked for .*models.realportrait.*install\.py.*by hand", "WeightsError"):
        extract(driver_box="")


def rendered(name, frames):
    """The first frames of a rendered head of tests/data, (frames, 256, 256, 3)."""
    av = pytest.importorskip("av")
    with av.open(str(Path(__file__).resolve().parents[1] / "data" / f"{name}.mp4")) as video:
        decoded = (torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0))
        return torch.stack([frame for frame, _ in zip(decoded, range(frames))]) / 255


def test_a_cut_is_warned_of_and_a_missing_face_fades(pack, run_node, vid2vid, extract, monkeypatch, caplog):
    """With the real detector: one head at the left, another at the right on white, then nobody."""
    detector = str(yunet.onnx())
    monkeypatch.setattr(pack("nodes.host.folders").folder_paths, "get_full_path", lambda folder, name: detector)
    left = torch.nn.functional.pad(rendered(800000, 3), (0, 0, 0, 256))
    right = torch.nn.functional.pad(rendered(810000, 3), (0, 0, 256, 0), value=1.0)
    driver = torch.cat([left, right, torch.zeros(6, 256, 512, 3)])
    keypoints, _, report = extract(driver=driver, driver_box="", missing_face="fade")
    assert "A cut or a jump at frame 3: a new track starts there." in report and report in caplog.text
    assert "Missing in frames 6-11: the motion fades out." in report
    assert keypoints.cuts == (3,) and keypoints.motion_weight.tolist() == pytest.approx([1] * 6 + [0.8, 0.6, 0.4, 0.2, 0, 0])

    given = {"mode": "relative", "pose_gain": 1.0, "expression_gain": 1.0, "neutral_frame": 0, "framing": "auto"}
    faded, held = (
        run_node("RealPortraitMotionMaps", vid2vid=vid2vid, keypoints=of, **given)[0].maps.f.float()
        for of in (keypoints, replace(keypoints, motion_weight=None))
    )
    assert torch.equal(faded[:6], held[:6]) and not faded[10:].any() and held[10:].any()
    assert torch.allclose(faded[7], 0.6 * held[7], atol=1e-3 * float(held[7].abs().max()))


def test_several_portraits_are_a_video(extract):
    """Whose first frame is found as a picture is; each further one has a face of its own."""
    both = picture(2)
    found = extract(portrait=both, driver=picture(2, 120, 110))[0]
    assert found.of_video and len(found.portrait) == 2
    assert torch.equal(found.feature, extract(portrait=both[:1])[0].feature)


def test_a_driver_of_one_frame_is_told_what_helps(extract):
    assert "paper-absolute" in extract(driver=picture(1, 120, 110))[2]
    assert "paper-absolute" not in extract()[2]


def test_keypoints_of_another_vid2vid(pack, run_node, extract, weights, vid2vid):
    keypoints = extract()[0]
    tiny.vid2vid_file(pack, weights / "other.safetensors", num_kp=7)
    other = run_node("RealPortraitLoadVid2Vid", weights="other.safetensors")[0]
    with refused(pack, "5 points .* has 7"):
        run_node("RealPortraitMotionMaps", vid2vid=other, keypoints=keypoints, **tiny.RELATIVE, framing="auto")


def test_motion_settings_that_cannot_be(pack, motion_of):
    with refused(pack, "mode"):
        motion_of(2, mode="sideways")
    with refused(pack, "neutral frame 2 .* 2 driving frames"):
        motion_of(2, neutral_frame=2)
    with refused(pack, "framing"):
        motion_of(2, framing="round")
    with refused(pack, "knows the 21 keypoints"):
        motion_of(2, mode="absolute")


def test_refused_by_the_sampler(pack, run_node, model, vae, motion_of):
    motion = motion_of(2)
    given = dict(model=model, vae=vae, portrait=picture(1), motion=motion, **SETTINGS)
    with refused(pack, "portrait is 90x90 px; the motion was made for one of 150x160 px"):
        run_node("RealPortraitSampler", **{**given, "portrait": picture(1, 90, 90)})
    with refused(pack, "sampler_name is 'eular'"):
        run_node("RealPortraitSampler", **{**given, "sampler_name": "eular"})
    with refused(pack, "scheduler is 'none'"):
        run_node("RealPortraitSampler", **{**given, "scheduler": "none"})
    with refused(pack, "speed is 'faster'; it must be one of: exact, balanced, fast, distilled"):
        run_node("RealPortraitSampler", **{**given, "speed": "faster"})

    class PixelVAE:
        def encode(self, pixels):
            return pixels.movedim(-1, 1)

    with refused(pack, r"makes a latent \(1, 3, 64, 64\).*needs \(1, 4, 8, 8\)"):
        run_node("RealPortraitSampler", **{**given, "vae": PixelVAE()})


def test_another_kind_of_model(pack, run_node, vae, motion_of):
    """A MODEL socket takes any model of the host."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.samplers
    import comfy.supported_models

    class Bare(comfy.model_base.BaseModel):
        def __init__(self):
            torch.nn.Module.__init__(self)

    patcher = comfy.model_patcher.ModelPatcher(Bare(), torch.device("cpu"), torch.device("cpu"))
    with refused(pack, "This MODEL is a Bare, not RealPortrait"):
        run_node("RealPortraitSampler", model=patcher, vae=vae, portrait=picture(1), motion=motion_of(1), **SETTINGS)
    with refused(pack, "This MODEL is a Bare, not RealPortrait"):
        run_node("RealPortraitSigmas", model=patcher, steps=2)
    (sampler,) = run_node("RealPortraitIDDPMSampler")
    guided = SimpleNamespace(inner_model=comfy.samplers.CFGGuider(patcher))
    with refused(pack, "This MODEL is a Bare, not RealPortrait"):
        sampler.sampler_function(guided, torch.zeros(1, 4, 8, 8), torch.tensor([1.0, 0.0]), extra_args={})


def test_refused_continuations(pack, run_node, vae, motion_of):
    motion = motion_of(18)
    conditioning = {"vae": vae, "portrait": picture(1), "motion": motion, "frames": 16, "strength": 1.0}
    positive, _, latent = run_node("RealPortraitConditioning", start_frame=0, **conditioning)
    with refused(pack, "starts at frame 18 and the motion has 18 frames"):
        run_node("RealPortraitConditioning", start_frame=18, **conditioning)

    def go_on(**changes):
        given = {"positive": positive, "previous": latent, "motion": motion, "start_frame": 15, "frames": 16, "overlap": 1}
        return run_node("RealPortraitContinueClip", **{**given, **changes})

    assert go_on()[2]["samples"].shape == (3, 4, 8, 8)
    with refused(pack, "starts at frame 30 and the motion has 18 frames"):
        go_on(start_frame=30)
    with refused(pack, "All 3 frames of this clip are taken over"):
        go_on(overlap=3)
    with refused(pack, r"previous LATENT is \(16, 4, 9, 8\)"):
        go_on(previous={"samples": torch.zeros(16, 4, 9, 8)})
    with refused(pack, "2 frames cannot be taken over from a LATENT of 1"):
        go_on(previous={"samples": torch.zeros(1, 4, 8, 8)}, overlap=2)
    with refused(pack, "does not come from RealPortrait"):
        go_on(positive=[[torch.zeros(1, 77, 768), {}]])

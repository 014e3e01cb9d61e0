"""RealPortrait under the host's own nodes: every sampler and scheduler, advanced and custom sampling, LoRA, caches, compile."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

FRAMES = 3
# Samplers under which the host's mask alone does not bring the known frame back: they do not end on a denoised picture.
# The pack puts it back for these too. Named in web/docs/RealPortraitSampler.md.
DRIFTING = {"dpm_fast", "dpm_adaptive", "uni_pc", "uni_pc_bh2"}
FAILING = set()  # samplers that end in NaN or an error


@pytest.fixture(scope="module")
def weights(pack, tmp_path_factory):
    return tiny.dit_file(pack, tmp_path_factory.mktemp("stock") / "dit.safetensors", depth=2, control_depth=1)


@pytest.fixture
def load(pack, weights):
    return lambda path=weights, weight_dtype="default": pack("nodes.host.model").load(path, weight_dtype)


@pytest.fixture
def model(load):
    return load()


@pytest.fixture
def clip(pack):
    """positive, negative, and a LATENT whose first frame is known."""
    conditioning = pack("nodes.host.conditioning").conditioning
    latent = {"samples": torch.zeros(FRAMES, 4, 8, 8), "noise_mask": torch.ones(FRAMES, 1, 8, 8)}
    latent["samples"][0], latent["noise_mask"][0] = tiny.latent(1, seed=9)[0], 0
    return *conditioning(tiny.latent(1), tiny.maps(pack, FRAMES), tiny.maps(pack, 1, seed=5), 1.0), latent


@pytest.fixture
def ksampler(host, clip):
    """The stock KSampler node: the samples of its LATENT."""

    def run(model, sampler_name="euler", scheduler="normal", steps=3, cfg=1.0):
        return host.NODE_CLASS_MAPPINGS["KSampler"]().sample(model, 7, steps, cfg, sampler_name, scheduler, *clip)[0]["samples"]

    return run


def close(a, b, room=1e-5) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= room * float(b.abs().max())


# ---- samplers and schedulers ----


def test_the_known_frame_survives_every_sampler(model, clip, ksampler):
    """Bit by bit. What the host's mask alone leaves of it is looked at inside the pack's own wrapper."""
    import comfy.patcher_extension as extension
    import comfy.samplers

    known, by_mask = clip[2]["samples"][0], []

    def look(executor, *args, **kwargs):
        samples = executor(*args, **kwargs)
        by_mask.append(samples[0].clone())
        return samples

    model.add_wrapper(extension.WrappersMP.OUTER_SAMPLE, look)
    drifting, failing, inexact = set(), set(), set()
    for name in comfy.samplers.KSampler.SAMPLERS:
        found = ksampler(model, name)
        if not torch.isfinite(found).all():
            failing.add(name)
        if not torch.equal(found[0], known):
            inexact.add(name)
        if not close(by_mask.pop(), known):
            drifting.add(name)
    assert (inexact, failing, drifting) == (set(), FAILING, DRIFTING)


def test_the_help_page_names_the_drifting_samplers():
    page = Path(__file__).resolve().parents[2] / "web" / "docs" / "RealPortraitSampler.md"
    said = next(line for line in page.read_text(encoding="utf-8").splitlines() if " let known frames drift" in line)
    assert set(said.partition(" let known frames drift")[0].split("`")[1::2]) == DRIFTING | FAILING


def test_every_scheduler(model, clip, ksampler):
    import comfy.samplers

    for name in comfy.samplers.KSampler.SCHEDULERS:
        found = ksampler(model, scheduler=name)
        assert torch.isfinite(found).all() and torch.equal(found[0], clip[2]["samples"][0]), name


# ---- sampling nodes ----


def test_ksampler_advanced_in_two_parts(host, model, clip, ksampler):
    """The first leaves its noise in, the second goes on: the same frames as in one go, and the known one stays known."""
    run = host.NODE_CLASS_MAPPINGS["KSamplerAdvanced"]().sample
    positive, negative, latent = clip
    (noisy,) = run(model, "enable", 7, 4, 1.0, "euler", "normal", positive, negative, latent, 0, 2, "enable")
    assert torch.equal(noisy["samples"][0], latent["samples"][0])
    assert not close(noisy["samples"], ksampler(model, steps=4), 0.1)
    (done,) = run(model, "disable", 0, 4, 1.0, "euler", "normal", positive, negative, noisy, 2, 10000, "disable")
    assert torch.equal(done["samples"][0], latent["samples"][0])
    assert close(done["samples"], ksampler(model, steps=4))


def test_custom_sampling_is_ksampler(model, clip, ksampler):
    from comfy_extras.nodes_custom_sampler import BasicScheduler, CFGGuider, KSamplerSelect, RandomNoise, SamplerCustomAdvanced

    positive, negative, latent = clip
    given = [
        RandomNoise.execute(7),
        CFGGuider.execute(model, positive, negative, 2.0),
        KSamplerSelect.execute("dpmpp_2m"),
        BasicScheduler.execute(model, "karras", 3, 1.0),
    ]
    out, denoised = SamplerCustomAdvanced.execute(*(node.result[0] for node in given), latent).result
    assert torch.equal(out["samples"], ksampler(model, "dpmpp_2m", "karras", cfg=2.0))
    assert close(denoised["samples"], out["samples"])  # dpmpp_2m ends on what it denoised last


def test_stock_samplers_preview_the_middle_frame(model, clip, ksampler, monkeypatch):
    """Not the first, which is known here and stands still: the last preview is the middle one of the clip that comes out."""
    import comfy.latent_formats
    import comfy.utils
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod

    monkeypatch.setattr(latent_preview.args, "preview_method", LatentPreviewMethod.Latent2RGB)
    plain, previews = comfy.latent_formats.SD15(), []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: previews.append(preview[1]))
    try:
        found = ksampler(model)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    previewer = latent_preview.get_previewer(model.load_device, plain)
    frames = [np.int32(previewer.decode_latent_to_preview(plain.process_in(frame[None]))) for frame in found]
    away = [abs(frame - np.int32(previews[-1])).max() for frame in frames]
    assert len(previews) == 3 and away[FRAMES // 2] <= 1 < min(away[: FRAMES // 2] + away[FRAMES // 2 + 1 :])


# ---- LoRA ----


def lora(model, naming):
    """A LoRA of rank 2 on every matrix of the network, as a file's tensors, and what it adds to each weight."""
    generator = torch.Generator().manual_seed(4)
    tensors, added = {}, {}
    for key, weight in model.model.diffusion_model.state_dict().items():
        if key.endswith(".weight") and weight.ndim == 2:
            up, down = (torch.randn(*shape, generator=generator) * 0.1 for shape in ((len(weight), 2), (2, weight.shape[1])))
            name = key.removesuffix(".weight")
            if naming == "kohya":
                name = "lora_unet_" + name.replace(".", "_")
                tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(2.0)}
            else:
                tensors |= {f"diffusion_model.{name}.lora_B.weight": up, f"diffusion_model.{name}.lora_A.weight": down}
            added[key] = up @ down
    return tensors, added


@pytest.mark.parametrize("naming, weight_dtype", [("kohya", "default"), ("peft", "default"), ("peft", "fp8_e4m3fn")])
def test_lora(host, pack, load, ksampler, caplog, tmp_path, naming, weight_dtype):
    """Every key finds its weight; half the strength adds half the product; ModelSave writes the sum."""
    import folder_paths
    from comfy_extras.nodes_model_merging import ModelSave

    checkpoint = pack("realportrait_core.checkpoint")
    model = load(weight_dtype=weight_dtype)
    tensors, added = lora(model, naming)
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder / "tiny_lora.safetensors", tensors, {})

    with caplog.at_level(logging.WARNING):
        (patched,) = host.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]().load_lora_model_only(model, "tiny_lora.safetensors", 0.5)
        found = ksampler(patched)
    assert not [record.message for record in caplog.records if "loaded" in record.message.lower()]
    assert patched.patches.keys() == {f"diffusion_model.{key}" for key in added} and len(added) > 30
    plain = ksampler(model)
    assert torch.isfinite(found).all() and not close(found, plain, 1e-2)
    if weight_dtype != "default":
        return

    state = model.model.diffusion_model.state_dict()
    merged = {key: state[key] + 0.5 * added[key] if key in added else state[key] for key in state}
    checkpoint.save(tmp_path / "merged.safetensors", merged, checkpoint.bundle_metadata("dit", model.model.model_config.dit))
    assert close(found, ksampler(load(tmp_path / "merged.safetensors")), 1e-4)

    ModelSave().save(patched, f"stock/{naming}")
    (saved,) = Path(folder_paths.get_output_directory(), "stock").glob(f"{naming}*")
    assert close(found, ksampler(load(saved)), 1e-4)


# ---- patches around the network ----


def runs_of(model) -> list:
    """Grows by one whenever the network really runs."""
    runs = []
    model.model.diffusion_model.final_layer.register_forward_hook(lambda *given: runs.append(1))
    return runs


def test_a_lora_is_extracted_and_saved_by_the_host(host, load, ksampler):
    """Of the difference between a patched model and the plain one; loaded again it does the same."""
    import folder_paths
    from comfy_extras.nodes_lora_extract import LoraSave
    from comfy_extras.nodes_model_merging import ModelSubtract

    model = load()
    patched = model.clone()
    _, added = lora(model, "peft")
    patched.add_patches({f"diffusion_model.{key}": ("diff", (value,)) for key, value in added.items()}, 0.5)
    wanted = ksampler(patched)
    (difference,) = ModelSubtract().merge(patched, model, 1.0)
    LoraSave.execute("stock/extracted", rank=2, lora_type="standard", bias_diff=False, model_diff=difference)
    (saved,) = Path(folder_paths.get_output_directory(), "stock").glob("extracted*")
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    saved.rename(folder / "extracted.safetensors")
    (again,) = host.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]().load_lora_model_only(load(), "extracted.safetensors", 1.0)
    away, off = (float((ksampler(found) - wanted).abs().mean()) for found in (model, again))
    assert off < 0.25 * away  # the host cuts off the largest hundredth of the factors


def test_a_model_that_fits_only_in_part(host, pack, load, ksampler, monkeypatch):
    """The host's low-VRAM loading: most weights stay offloaded and are cast as they are used, with a LoRA on them too."""
    import folder_paths
    from comfy.model_patcher import ModelPatcher

    model = load()
    tensors, _ = lora(model, "peft")
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    pack("realportrait_core.checkpoint").save(folder / "low_vram_lora.safetensors", tensors, {})
    (patched,) = host.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]().load_lora_model_only(model, "low_vram_lora.safetensors", 0.5)
    whole = [ksampler(model), ksampler(patched)]

    loads, room, load_model = [], model.model_size() // 4, ModelPatcher.load

    def load_a_quarter(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        load_model(self, device_to, room, force_patch_weights, False)
        loads.append(self.model.model_lowvram)

    monkeypatch.setattr(ModelPatcher, "load", load_a_quarter)
    again = load()
    parts = [ksampler(again)]
    (patched,) = host.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]().load_lora_model_only(again, "low_vram_lora.safetensors", 0.5)
    parts.append(ksampler(patched))
    assert loads and all(loads) and again.model.lowvram_patch_counter > 0
    for part, full in zip(parts, whole):
        assert close(part, full)


@pytest.mark.parametrize("node", ["EasyCacheNode", "LazyCacheNode"])
def test_step_caches(model, clip, ksampler, node):
    """With nothing to spare every step runs; with a loose threshold some are skipped, and the known frame stays."""
    import comfy_extras.nodes_easycache as easycache

    cached = getattr(easycache, node)
    runs = runs_of(model)
    (strict,) = cached.execute(model, 0.0, 0.15, 0.95, False).result
    assert torch.equal(ksampler(strict, steps=8), ksampler(model, steps=8)) and len(runs) == 16
    runs.clear()
    (loose,) = cached.execute(model, 3.0, 0.15, 0.95, False).result
    found = ksampler(loose, steps=8)
    assert len(runs) < 8
    assert torch.isfinite(found).all() and torch.equal(found[0], clip[2]["samples"][0])


def test_torch_compile(model, ksampler):
    """The stock node's patch point: the network's graph reaches the compiler, and the frames are the same."""
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    (compiled,) = TorchCompileModel.execute(model, backend).result
    found = ksampler(compiled, steps=1)
    assert graphs and close(found, ksampler(model, steps=1))

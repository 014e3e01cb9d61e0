"""Weight files of Face Vid2vid: bundles, public files, and everything that a slot must refuse."""

import json
import pickle
import random
import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from golden import load, state
from public import NAMES as PUBLIC_NAMES
from public import TINY, with_spectral_norm
from safetensors.torch import save_file

from realportrait_core.checkpoint import (
    DESCRIPTIONS,
    METADATA_KEY,
    bundle_metadata,
    config_from_fields,
    read_header,
    read_safetensors,
    save,
    sniff,
)
from realportrait_core.config import DiTConfig, Vid2VidConfig
from realportrait_core.errors import WeightsError
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import fuse_spectral_norm, load_stitching, load_vid2vid, save_vid2vid
from realportrait_core.vid2vid.keypoints import transform
from realportrait_core.vid2vid.sizes import vid2vid_config_from_state
from realportrait_core.vid2vid.stitching import retarget_opening, stitch

PUBLIC = replace(TINY, crop_size=256)  # a public file says nothing of the crop


def model_of(cfg: Vid2VidConfig) -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(cfg).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiny() -> FaceVid2Vid:
    return model_of(TINY)


@pytest.fixture
def bundle(tiny, tmp_path) -> Path:
    path = tmp_path / "bundle.safetensors"
    save_vid2vid(path, tiny, torch.float32)
    return path


def picture(model: FaceVid2Vid) -> torch.Tensor:
    """One pass through all four networks."""
    size = model.cfg.crop_size
    portrait, driver = torch.rand(2, 1, 3, size, size, generator=torch.Generator().manual_seed(1))
    warped = model.warping(model.appearance(portrait), transform(model.motion(driver)), transform(model.motion(portrait)))
    return model.generator(warped.out)


def fused_scale(weights: dict) -> dict:
    """What with_spectral_norm's weights become: each divided by its own u^T W v."""
    return fuse_spectral_norm(with_spectral_norm(weights))


def write_public(folder: Path, model: FaceVid2Vid, prefix: str = "") -> None:
    folder.mkdir(exist_ok=True)
    for part, name in PUBLIC_NAMES.items():
        weights = getattr(model, part).state_dict()
        weights = with_spectral_norm(weights) if part == "generator" else weights
        save_file({prefix + key: value.clone() for key, value in weights.items()}, folder / f"{name}.safetensors")


# Bundles


def test_a_bundle_comes_back_whole(tiny, bundle):
    again = load_vid2vid(bundle)
    assert again.cfg == TINY
    assert all(torch.equal(value, tiny.state_dict()[key]) for key, value in again.state_dict().items())
    assert (picture(again) - picture(tiny)).abs().max() < 1e-5  # of 0 to 1: weights of a file lie elsewhere in memory
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert not any(tensor.is_meta for tensor in [*again.parameters(), *again.buffers()])


def test_half_storage_is_read_into_float32(tiny, tmp_path):
    path = tmp_path / "half.safetensors"
    save_vid2vid(path, tiny)
    assert read_safetensors(path)[0]["warping.fourth.weight"].dtype == torch.float16
    again = load_vid2vid(path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert (picture(again) - picture(tiny)).abs().max() < 5e-3


def test_a_bundle_may_lack_the_generator_and_the_batch_counters(tiny, tmp_path):
    weights = {
        key: value
        for key, value in tiny.state_dict().items()
        if not key.startswith("generator.") and not key.endswith("num_batches_tracked")
    }
    save(tmp_path / "no_g.safetensors", weights, bundle_metadata("vid2vid", TINY))
    again = load_vid2vid(tmp_path / "no_g.safetensors")
    assert again.generator is None and again.cfg == TINY


def test_extra_tensors_are_named_and_left_out(tiny, bundle, caplog):
    weights, metadata = read_safetensors(bundle)
    save(bundle, weights | {"warping.fifth.weight": torch.zeros(1)}, metadata)
    load_vid2vid(bundle)
    assert "warping.fifth.weight" in caplog.text


# Public files


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("entry", ["", *PUBLIC_NAMES.values()])
def test_public_files_load_by_folder_or_by_any_of_them(tmp_path, entry, prefix):
    model = model_of(PUBLIC)
    write_public(tmp_path, model, prefix)
    again = load_vid2vid(tmp_path / f"{entry}.safetensors" if entry else tmp_path)
    assert again.cfg == PUBLIC
    for part in ("appearance", "motion", "warping"):
        wanted = getattr(model, part).state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in getattr(again, part).state_dict().items())
    wanted = fused_scale(model.generator.state_dict())
    assert all(torch.equal(value, wanted[key]) for key, value in again.generator.state_dict().items())


def test_fused_spectral_norm_has_the_stored_direction_at_one():
    tensors, _ = load("motion", "G_small")
    weights = state(tensors)
    fused = fuse_spectral_norm(weights)
    checked = 0
    for key in fused:
        if f"{key}_orig" in weights:
            u, v = weights[f"{key}_u"], weights[f"{key}_v"]
            assert abs(float(u @ fused[key].flatten(1) @ v) - 1) < 1e-5
            checked += 1
    assert checked == 18
    assert not any(key.endswith(("_orig", "_u", "_v")) for key in fused)


def test_fused_weights_do_not_depend_on_where_the_tensors_lie():
    """In a file they begin anywhere, and fast products of matrix and vector take other sums then."""

    def moved(value: torch.Tensor) -> torch.Tensor:
        room = torch.empty(value.numel() + 1, dtype=value.dtype)
        return room[1:].view(value.shape).copy_(value)

    public = with_spectral_norm(model_of(PUBLIC).generator.state_dict())
    wanted = fuse_spectral_norm(public)
    found = fuse_spectral_norm({key: moved(value) for key, value in public.items()})
    assert found.keys() == wanted.keys() and all(torch.equal(value, wanted[key]) for key, value in found.items())


def test_public_files_need_f_m_and_w_but_not_g(tmp_path):
    write_public(tmp_path, model_of(PUBLIC))
    (tmp_path / "spade_generator.safetensors").unlink()
    assert load_vid2vid(tmp_path).generator is None
    (tmp_path / "warping_module.safetensors").unlink()
    with pytest.raises(WeightsError, match="lacks LivePortrait's warping network"):
        load_vid2vid(tmp_path / "motion_extractor.safetensors")


def test_roles_are_judged_by_keys_and_not_by_names(tmp_path):
    write_public(tmp_path, model_of(PUBLIC))
    for i, path in enumerate(sorted(tmp_path.iterdir())):
        path.rename(tmp_path / f"{i}.safetensors")
    (tmp_path / "4.safetensors").write_bytes(b"damaged neighbour")
    save_file({"a_lora.lora_up.weight": torch.zeros(1)}, tmp_path / "5.safetensors")
    assert load_vid2vid(tmp_path).cfg == PUBLIC


def test_two_files_of_one_kind_are_refused_unless_one_is_chosen(tmp_path):
    write_public(tmp_path, model_of(PUBLIC))
    other = model_of(PUBLIC).warping.state_dict()
    save_file({key: value * 0 for key, value in other.items()}, tmp_path / "another_warp.safetensors")
    with pytest.raises(WeightsError, match="warping_module.safetensors and another_warp.safetensors"):
        load_vid2vid(tmp_path)
    assert not load_vid2vid(tmp_path / "another_warp.safetensors").warping.fourth.weight.any()


def test_networks_of_different_sets_are_refused(tmp_path):
    write_public(tmp_path, model_of(PUBLIC))
    write_public(tmp_path / "other", model_of(replace(PUBLIC, num_kp=7)))
    (tmp_path / "other" / "motion_extractor.safetensors").replace(tmp_path / "motion_extractor.safetensors")
    with pytest.raises(WeightsError, match="M finds 7 keypoints and W moves 5"):
        load_vid2vid(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        dict(num_kp=15),
        dict(upscale=1),
        dict(upscale=4),
        dict(reshape_depth=2),
        dict(dense_blocks=1, dense_max=8),
        dict(dense_blocks=3, dense_max=16),
        dict(appearance_resblocks=3),
        dict(motion_depths=(1, 1), motion_dims=(8, 12)),
        dict(mask_kernel=7),
        dict(num_bins=33),
        dict(appearance_down=1),
    ],
)
def test_every_size_is_read_off_the_shapes(changes):
    cfg = replace(PUBLIC, **changes)
    with torch.device("meta"):
        weights = FaceVid2Vid(cfg).state_dict()
    assert vid2vid_config_from_state(weights, {}) == cfg


def test_paper_sizes_are_read_off_the_shapes():
    with torch.device("meta"):
        weights = FaceVid2Vid(Vid2VidConfig()).state_dict()
    assert vid2vid_config_from_state(weights, {}) == Vid2VidConfig()


def test_stitching_and_retargeting_are_the_original(tmp_path):
    tensors, _ = load("motion", "stitching_retargeting")
    save_file(state(tensors), tmp_path / "stitching_retargeting_module.safetensors")
    networks = load_stitching(tmp_path / "stitching_retargeting_module.safetensors")
    for name, network in networks.items():
        assert (network(tensors[f"in/{name}"]) - tensors[f"out/{name}"]).abs().max() < 1e-5, name

    x_s, x_d = tensors["in/stitching"].view(3, 2, 21, 3).unbind(1)
    change = tensors["out/stitching"]
    wanted = x_d + change[:, :63].view(3, 21, 3)
    wanted[..., :2] += change[:, None, 63:]
    assert (stitch(networks["stitching"], x_s, x_d) - wanted).abs().max() < 1e-5
    for name in ("lip", "eye"):
        given = tensors[f"in/{name}"]
        found = retarget_opening(networks[name], given[:, :63].view(3, 21, 3), given[:, 63:])
        assert (found - tensors[f"out/{name}"].view(3, 21, 3)).abs().max() < 1e-5, name


# What a slot must refuse


def pickled(path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, path)


def old_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}, protocol=2))


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path: None, "no weight file"),
        (lambda path: path.write_bytes(b""), "not a safetensors file"),
        (lambda path: path.write_bytes(b"1234567"), "not a safetensors file"),
        (pickled, "pickled PyTorch file.*never opens"),
        (old_pickle, "pickled PyTorch file.*never opens"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS pointer"),
        (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "web page"),
        (lambda path: path.write_bytes(struct.pack("<Q", 2**40) + b"{}"), "not a safetensors file"),
        (lambda path: path.write_bytes(struct.pack("<Q", 4000) + b"{}"), "cut short: 10 bytes .* 4008"),
        (lambda path: path.write_bytes(struct.pack("<Q", 2) + b"[]"), "header cannot be read"),
        (lambda path: path.write_bytes(struct.pack("<Q", 4) + b"\xff\xfe{}"), "header cannot be read"),
        (lambda path: path.write_bytes(struct.pack("<Q", 8) + b'{"a":{}}'), "header cannot be read .a tensor without 'dtype'"),
        (lambda path: path.mkdir(), "lacks LivePortrait's appearance and motion and warping"),
    ],
)
def test_files_that_are_no_weights_are_refused_by_content(tmp_path, write, message):
    path = tmp_path / "weights.safetensors"
    write(path)
    with pytest.raises(WeightsError, match=f"(?s)weights.safetensors.*{message}|{message}.*weights.safetensors"):
        load_vid2vid(path)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_download_cut_short_says_how_much_is_missing(bundle, kept):
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(WeightsError, match=f"cut short: {int(len(whole) * kept)} bytes of {len(whole)}"):
        load_vid2vid(bundle)


def test_damaged_headers_never_raise_anything_else(bundle):
    whole = bundle.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    rng = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            damaged[rng.randrange(8 + length)] = rng.randrange(256)
        bundle.write_bytes(damaged)
        try:
            load_vid2vid(bundle)
        except WeightsError:
            refused += 1
    assert refused > 100


def test_missing_and_misshapen_tensors_are_named(tiny, bundle):
    weights, metadata = read_safetensors(bundle)
    save(bundle, {key: value for key, value in weights.items() if key != "warping.third.conv.bias"}, metadata)
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors are missing: warping.third.conv.bias"):
        load_vid2vid(bundle)
    save(bundle, weights | {"warping.third.conv.bias": torch.zeros(9)}, metadata)
    with pytest.raises(WeightsError, match=r"warping.third.conv.bias is \(9,\), needed \(6,\)"):
        load_vid2vid(bundle)
    save(bundle, {key: value for key, value in weights.items() if key != "motion.detector.fc_pitch.weight"}, metadata)
    with pytest.raises(WeightsError, match="lack motion.detector.fc_pitch.weight"):
        load_vid2vid(bundle)


def test_weights_that_are_whole_numbers_or_nothing_are_refused(tiny, bundle):
    weights, metadata = read_safetensors(bundle)
    save(bundle, weights | {"warping.third.conv.bias": weights["warping.third.conv.bias"].to(torch.int8)}, metadata)
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors hold whole numbers.*: warping.third.conv.bias"):
        load_vid2vid(bundle)
    save(bundle, weights | {"motion.detector.stages.0.0.dwconv.weight": torch.zeros(0)}, {})
    with pytest.raises(WeightsError, match=r"impossible sizes: motion_dims is \(0, .* above 0"):
        load_vid2vid(bundle)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(num_kp=21), "num_kp = 21 and its weights have 5"),
        (dict(motion_dims=[8, 8, 8, 8]), r"motion_dims = \(8, 8, 8, 8\) and its weights have \(8, 8, 12, 8\)"),
        (dict(crop_size=10), "impossible sizes.*crop_size 10"),
        (dict(crop_size=2**30), "impossible sizes.*crop_size"),
        (dict(crop_size=2**40), "crop_size = 1099511627776.*too large"),
        (dict(appearance_down=2**30), "impossible sizes.*poolings"),
        (dict(crop_size="32"), "crop_size = '32'"),
        (dict(crop_size=True), "crop_size = True"),
        (dict(motion_dims=8), "motion_dims = 8"),
        (dict(colour="red"), "does not know: colour"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(tiny, bundle, change, message):
    info = {"role": "vid2vid", "version": 1, "config": asdict(TINY) | change}
    save(bundle, tiny.state_dict(), {METADATA_KEY: json.dumps(info)})
    with pytest.raises(WeightsError, match=message):
        load_vid2vid(bundle)


@pytest.mark.parametrize(
    "text, message",
    [
        ("not json", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"role": "vid2vid"}', "cannot be read"),
        ('{"role": "vid2vid", "version": 1, "config": [[0, 0]]}', "its config is a list"),
        ('{"role": "vid2vid", "version": 2, "config": {}}', "format 2 .* up to 1"),
        ('{"role": "dit", "version": 1, "config": {}}', "'dit'"),
    ],
)
def test_metadata_that_cannot_be_followed_is_refused(tiny, bundle, text, message):
    save(bundle, tiny.state_dict(), {METADATA_KEY: text})
    with pytest.raises(WeightsError, match=message):
        load_vid2vid(bundle)


WRONG_FILES = {
    "sd_checkpoint": [
        "model.diffusion_model.input_blocks.0.0.weight",
        "first_stage_model.decoder.up.0.block.0.conv1.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    ],
    "sd_unet": ["down_blocks.0.resnets.0.time_emb_proj.weight", "down_blocks.0.resnets.0.conv1.weight"],
    "lora": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "lora_unet_x.lora_up.weight"],
    "sd_vae": ["encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"],
    "vae": ["taesd_encoder.0.weight", "taesd_decoder.1.weight", "vae_scale"],
    "text_encoder": ["text_model.embeddings.token_embedding.weight"],
    "dit": ["x_embedder.proj.weight", "motion_net.0.weight", "controlnet.0.before_proj.weight", "t_block_temp.1.weight"],
    "stdit2": ["x_embedder.proj.weight", "t_block_temp.1.weight", "blocks.0.attn_temp.qkv.weight"],
    "pixart": ["x_embedder.proj.weight", "blocks.0.cross_attn.q_linear.weight"],
    "stitching": ["retarget_shoulder_module.mlp.0.weight"],
    "one_shot_vid2vid": ["resblocks_3d.3dr0.conv1.weight", "dense_motion_network.mask.weight"],
    "unknown": ["head.weight"],
}


@pytest.mark.parametrize("role", WRONG_FILES)
def test_another_models_file_is_named(tmp_path, role):
    path = tmp_path / "pretty_name.safetensors"
    save_file({key: torch.zeros(1) for key in WRONG_FILES[role]}, path)
    what, where = DESCRIPTIONS[role]
    with pytest.raises(WeightsError) as caught:
        load_vid2vid(path)
    assert what in str(caught.value) and where in str(caught.value) and "needs a Face Vid2vid bundle" in str(caught.value)


def test_roles_of_our_own_and_of_public_files(tiny):
    assert sniff(tiny.state_dict()) == "vid2vid"
    for part in PUBLIC_NAMES:
        assert sniff(getattr(tiny, part).state_dict()) == part
    assert sniff(["model.diffusion_model.motion_net.0.weight"]) == "dit"
    assert sniff([]) == "unknown"


def test_a_bundle_in_the_stitching_slot_is_named(bundle):
    with pytest.raises(WeightsError, match="looks like a Face Vid2vid bundle"):
        load_stitching(bundle)


# Writing


def test_saving_is_all_or_nothing(tiny, bundle):
    before = bundle.read_bytes()
    with pytest.raises(WeightsError, match="a are not finite"):
        save(bundle, {"a": torch.tensor([1.0, float("nan")])}, {})
    with pytest.raises(WeightsError, match="could not be written"):
        save(bundle / "below_a_file.safetensors", {"a": torch.zeros(1)}, {})
    assert bundle.read_bytes() == before
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_file_that_may_not_grow_leaves_the_one_before(bundle):
    """Fault 34: the process may write files of 1,000 bytes, as on a full disk, and the new one would be larger."""
    resource = pytest.importorskip("resource")
    before, limits = bundle.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WeightsError, match="could not be written: .*File too large"):
            save(bundle, {"a": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert bundle.read_bytes() == before and [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_saving_makes_folders_and_keeps_views_and_metadata(tmp_path):
    path = tmp_path / "new" / "folder" / "x.safetensors"
    value = torch.arange(6.0).view(2, 3).T
    save(path, {"a": value}, {"b": "c"})
    weights, metadata = read_safetensors(path)
    assert torch.equal(weights["a"], value) and metadata == {"b": "c"}
    assert read_header(path).shapes == {"a": (3, 2)}


def test_configs_survive_json():
    for cfg in (TINY, DiTConfig()):
        fields = json.loads(bundle_metadata("dit", cfg)[METADATA_KEY])["config"]
        assert config_from_fields(type(cfg), fields) == cfg

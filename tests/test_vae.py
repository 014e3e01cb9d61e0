"""TinyVAE: layout, equivalence of widths, bad input, and the quality of the bundled one; files of the SD1.5 VAE."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from realportrait_core.errors import InputError, WeightsError
from realportrait_core.train.budget import Budget
from realportrait_core.train.mini.vae import (
    CHARBONNIER,
    GRADIENT_WEIGHT,
    Pairs,
    evaluate,
    fit_pairs,
    picture_loss,
    psnr,
    random_crops,
    train_vae,
)
from realportrait_core.vae import (
    LATENT_SCALE,
    WIDTHS,
    AutoencoderKL,
    TinyVAE,
    load_taesd,
    load_tiny_vae,
    load_vae,
    resized,
    save_vae,
)

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "realportrait_core/weights/vae/realportrait_mini_vae.safetensors"
TEACHER = ROOT.parent / "shared/taesd"
CLIPS = ROOT / "tests/data"


@pytest.fixture(scope="module")
def teacher() -> TinyVAE:
    if not TEACHER.is_dir():
        pytest.skip("The TAESD weights are not at ../shared/taesd.")
    return load_taesd(TEACHER)


@pytest.fixture(scope="module")
def bundled() -> TinyVAE:
    if not BUNDLED.is_file():
        pytest.skip(f"{BUNDLED.name} is not there.")
    return load_vae(BUNDLED)


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """First, middle and last frame of each bundled clip (N,3,H,W) in [0,1]."""
    av = pytest.importorskip("av")
    clips = sorted(CLIPS.rglob("*.mp4"))[:4]
    if not clips:
        pytest.skip("There are no clips in tests/data.")
    chosen = []
    for clip in clips:
        with av.open(str(clip)) as video:
            pictures = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
        chosen += [pictures[0], pictures[len(pictures) // 2], pictures[-1]]
    return torch.stack(chosen).permute(0, 3, 1, 2) / 255


def small(seed: int = 0) -> TinyVAE:
    torch.manual_seed(seed)
    return TinyVAE((6, 8, 10, 12)).eval()


# Layout


def test_shapes():
    vae = small()
    with torch.inference_mode():
        latents = vae.encode(torch.rand(2, 3, 48, 32))
        images = vae.decode(latents * 30)
    assert latents.shape == (2, 4, 6, 4)
    assert images.shape == (2, 3, 48, 32)
    assert images.min() >= 0 and images.max() <= 1


def test_keys_are_what_load_vae_of_comfyui_looks_for():
    state = TinyVAE().state_dict()
    assert state["taesd_decoder.1.weight"].shape == (64, 4, 3, 3)
    assert state["taesd_encoder.14.weight"].shape == (4, 64, 3, 3)
    assert state["taesd_decoder.19.bias"].shape == (3,)
    assert {key for key in state if key.endswith("bias") and ".conv." not in key} == {
        "taesd_encoder.0.bias",
        "taesd_encoder.14.bias",
        "taesd_decoder.1.bias",
        "taesd_decoder.19.bias",
    }
    assert state["vae_scale"].item() == pytest.approx(LATENT_SCALE) and state["vae_shift"].item() == 0


def test_decoder_soft_clamps_latents():
    """Latents far beyond 3 decode as 3 does."""
    vae = small()
    with torch.inference_mode():
        far, farther = (vae.decode(torch.full((1, 4, 4, 4), value)) for value in (300.0, 3000.0))
    assert torch.equal(far, farther)


def test_padding_to_the_published_layout_keeps_the_function(tmp_path):
    vae = small()
    wide = resized(vae, WIDTHS)
    save_vae(tmp_path / "vae.safetensors", vae)
    stored = load_vae(tmp_path / "vae.safetensors")
    assert wide.widths == WIDTHS and stored.widths == vae.widths
    images, latents = torch.rand(1, 3, 32, 32), torch.randn(1, 4, 4, 4)
    with torch.inference_mode():
        for other, tolerance in ((wide, 1e-5), (stored, 1e-3)):
            torch.testing.assert_close(other.encode(images), vae.encode(images), atol=tolerance, rtol=tolerance)
            torch.testing.assert_close(other.decode(latents), vae.decode(latents), atol=tolerance, rtol=tolerance)


def test_the_file_has_the_published_layout(tmp_path):
    save_vae(tmp_path / "vae.safetensors", small())
    state = load_file(tmp_path / "vae.safetensors")
    wanted = TinyVAE().state_dict()
    assert {name: value.shape for name, value in state.items()} == {name: value.shape for name, value in wanted.items()}
    assert {value.dtype for value in state.values()} == {torch.float16}


def test_narrowing_refuses_to_drop_live_channels():
    with pytest.raises(WeightsError, match="loses"):
        resized(small(), (6, 8, 10, 11))


# Bad input


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 3, 32, 36), (1, 4, 32, 32), (3, 32, 32)])
def test_encode_refuses_other_shapes(shape):
    with pytest.raises(InputError, match=r"multiples of 8"):
        small().encode(torch.rand(shape))


@pytest.mark.parametrize("shape", [(1, 16, 4, 4), (4, 4, 4)])
def test_decode_refuses_other_shapes(shape):
    with pytest.raises(InputError, match="SD1.5"):
        small().decode(torch.rand(shape))


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="no weight file"):
        load_vae(tmp_path / "nothing.safetensors")


def test_truncated_file(tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    save_file(TinyVAE().state_dict(), whole)
    cut.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="cut short: 100000 bytes"):
        load_vae(cut)


def test_other_network(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"decoder.up.0.block.0.conv1.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(WeightsError, match="needs a TAESD autoencoder"):
        load_tiny_vae(path)
    with pytest.raises(WeightsError, match="encoder.conv_in.weight is missing"):
        load_vae(path)
    save_file({"text_model.embeddings.token_embedding.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(WeightsError, match="looks like a text encoder; this slot needs a Stable Diffusion VAE"):
        load_vae(path)


def test_half_of_a_vae(tmp_path):
    state = {name: value for name, value in TinyVAE().state_dict().items() if name.startswith("taesd_encoder")}
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match=r"\d+ of \d+ tensors are missing"):
        load_vae(tmp_path / "half.safetensors")


def test_nan(tmp_path):
    state = TinyVAE().state_dict()
    state["taesd_decoder.19.bias"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match="taesd_decoder.19.bias"):
        load_vae(tmp_path / "nan.safetensors")


# The SD1.5 VAE; tests/host/test_sd_vae.py compares its numbers with the host's


@pytest.fixture(scope="module")
def kl() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(32).eval()


def test_sizes_of_the_sd_vae_are_the_published_ones():
    with torch.device("meta"):
        vae = AutoencoderKL()
    assert sum(value.numel() for value in vae.state_dict().values()) == 83_653_863
    assert vae.encoder.conv_out.weight.shape == (8, 512, 3, 3) and vae.decoder.conv_out.weight.shape == (3, 128, 3, 3)


def test_the_sd_vae_encodes_and_decodes_scaled_latents(kl):
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        posterior, latents = kl.posterior(images), kl.encode(images)
        moments = kl.quant_conv(kl.encoder(2 * images - 1))
        pictures = kl.decode(latents)
    assert torch.equal(latents, posterior.mean) and latents.shape == (2, 4, 4, 6)
    torch.testing.assert_close(posterior.mean, 0.18215 * moments[:, :4])
    torch.testing.assert_close(posterior.deviation.square(), 0.18215**2 * moments[:, 4:].exp())
    assert pictures.shape == images.shape and pictures.min() >= 0 and pictures.max() <= 1
    with pytest.raises(InputError, match="multiples of 8"):
        kl.encode(torch.rand(1, 3, 30, 32))
    with pytest.raises(InputError, match="SD1.5"):
        kl.decode(torch.rand(1, 16, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_checkpoint_gives_its_vae_alone(kl, tmp_path, dtype):
    """A whole checkpoint holds a UNet and a text encoder beside it; none of them is read."""
    path = tmp_path / "sd15.safetensors"
    state = {f"first_stage_model.{name}": value.to(dtype) for name, value in kl.state_dict().items()}
    unet = {"model.diffusion_model.input_blocks.0.0.weight": torch.full((4, 4), float("nan"))}
    save_file(state | unet, path)
    found = load_vae(path)
    assert all(torch.equal(value, state[f"first_stage_model.{name}"].float()) for name, value in found.state_dict().items())
    save_file(state | unet | {"conditioner.embedders.0.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="SDXL"):
        load_vae(path)
    save_file(unet, path)
    with pytest.raises(WeightsError, match="not a whole VAE"):
        load_vae(path)


def test_wrong_files_of_an_sd_vae(kl, tmp_path):
    path, state = tmp_path / "vae.safetensors", kl.state_dict()
    save_file(state | {"decoder.conv_in.weight": torch.zeros(128, 16, 3, 3)}, path)
    with pytest.raises(WeightsError, match="SD1.5's latents have 4 channels"):
        load_vae(path)
    save_file({name: value for name, value in state.items() if not name.startswith("quant_conv")}, path)
    with pytest.raises(WeightsError, match="2 of 248 tensors are missing: quant_conv.bias, quant_conv.weight"):
        load_vae(path)
    save_file(state | {"quant_conv.weight": state["quant_conv.weight"].to(torch.int8)}, path)
    with pytest.raises(WeightsError, match="whole numbers"):
        load_vae(path)
    save_file(state | {"encoder.conv_in.bias": torch.full((32,), float("inf"))}, path)
    with pytest.raises(WeightsError, match="not finite"):
        load_vae(path)


# Training


def test_crops_of_frame_and_latent_show_the_same_place():
    rows = torch.arange(8).repeat_interleave(8)
    frames = rows.view(1, 1, 64, 1).expand(2, 3, 64, 64).to(torch.uint8)
    latents = torch.arange(8.0).view(1, 1, 8, 1).expand(2, 4, 8, 8)
    torch.manual_seed(0)
    pictures, cropped = random_crops(Pairs(frames, latents), 16, 3)
    assert pictures.shape == (16, 3, 24, 24)
    torch.testing.assert_close(pictures[:, 0, ::8, ::8] * 255, cropped[:, 0])
    assert cropped[:, 0, 0, 0].unique().numel() > 1


def test_picture_loss_is_squared_for_small_and_absolute_for_large_errors():
    frame = torch.zeros(1, 3, 8, 8)
    small_error, large_error = (picture_loss(frame + value, frame).item() for value in (CHARBONNIER / 100, CHARBONNIER * 1000))
    assert small_error == pytest.approx((CHARBONNIER / 100) ** 2 / (2 * CHARBONNIER), rel=0.02)
    assert large_error == pytest.approx(CHARBONNIER * 999, rel=1e-3)
    stripes = torch.zeros(1, 3, 8, 8)
    stripes[..., ::2] = CHARBONNIER * 1000
    assert picture_loss(stripes, frame) > GRADIENT_WEIGHT * CHARBONNIER * 900


def test_psnr_of_a_known_error():
    assert psnr(torch.full((2, 3, 4, 4), 0.1), torch.zeros(2, 3, 4, 4)).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)


def learned(pairs: Pairs, joint: bool, checkpoint: Path, steps: int) -> TinyVAE:
    torch.manual_seed(0)
    return fit_pairs(TinyVAE((4, 4, 8, 8)), pairs, joint, checkpoint, Budget(steps), batch=2, side=4, lr=5e-3)


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
def test_training_comes_nearer_skips_what_is_not_finite_and_resumes(tmp_path, joint):
    """Four smooth pictures, of one of which the teacher's latents are not numbers."""
    torch.manual_seed(3)
    frames = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4), size=48, mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        pairs = Pairs((255 * frames).byte(), small(5).encode(frames))
    poisoned = Pairs(pairs.frames, pairs.latents.clone())
    poisoned.latents[3] = float("nan")
    vae = learned(poisoned, joint, tmp_path / "a.ckpt", 60)
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["step"] == 60 and 10 < saved["skipped"] < 50
    whole = Pairs(pairs.frames[:3], pairs.latents[:3])
    torch.manual_seed(0)
    before, after = evaluate(TinyVAE((4, 4, 8, 8)), whole), evaluate(vae, whole)
    assert after["teacher_latents_db"] > before["teacher_latents_db"] + 1
    assert after["latent_error"] < 0.95 * before["latent_error"]
    resumed = learned(poisoned, joint, tmp_path / "a.ckpt", 60)  # the budget is spent: the averaged weights as they are
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in vae.state_dict().items())


def test_a_vae_is_trained_from_a_folder_of_clips(tmp_path):
    """A second of training by a teacher of random weights; the checkpoints of both parts are gone at the end."""
    pytest.importorskip("av")
    (tmp_path / "data").mkdir()
    for split in ("train", "val"):
        (tmp_path / "data" / split).symlink_to(CLIPS)
    teacher = resized(small(), WIDTHS).state_dict()
    for half in ("taesd_encoder", "taesd_decoder"):
        part = {name.removeprefix(f"{half}."): value for name, value in teacher.items() if name.startswith(half)}
        (tmp_path / "taesd").mkdir(exist_ok=True)
        save_file(part, tmp_path / "taesd" / f"{half}.safetensors")
    out = tmp_path / "vae.safetensors"
    figures = train_vae(tmp_path / "data", tmp_path / "taesd", out, minutes=1 / 60, batch=2, side=4)
    assert load_vae(out).widths == (16, 32, 64, 64) and all(value == value for value in figures.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "taesd", "vae.safetensors"]


# Quality


def test_teacher_round_trip(teacher, frames):
    frames = frames[:2]
    with torch.inference_mode():
        assert psnr(teacher.decode(teacher.encode(frames)), frames).mean() > 28


def test_bundled_round_trip(bundled, frames):
    with torch.inference_mode():
        assert psnr(bundled.decode(bundled.encode(frames)), frames).mean() > 28


def test_bundled_shares_the_latents_of_the_teacher(bundled, teacher, frames):
    frames = (frames[:2] * 255).round().to(torch.uint8)
    with torch.inference_mode():
        figures = evaluate(bundled, Pairs(frames, teacher.encode(frames / 255)))
        swapped = psnr(teacher.decode(bundled.encode(frames / 255)), frames / 255).mean()
    assert figures["teacher_latents_db"] > 28
    assert figures["latent_error"] < 0.35
    assert swapped > 26

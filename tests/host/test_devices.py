"""Which precision and device the loaders choose, by what the host says of the device: the table, tried on a CPU."""

import pytest
import tiny
import torch
from refusal import refused

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.fixture
def device(host, monkeypatch):
    """device(fp16, bf16): the host's answers of a device that is good at these, or "hold" where it can only hold them."""
    import comfy.model_management as management

    def answer(can):
        return lambda device=None, model_params=0, prioritize_performance=True, manual_cast=False: (
            can is True or (can == "hold" and manual_cast)
        )

    def be(fp16, bf16):
        monkeypatch.setattr(management, "should_use_fp16", answer(fp16))
        monkeypatch.setattr(management, "should_use_bf16", answer(bf16))

    return be


# device, good at fp16, good at bf16 -> dtypes of the transformer's weights and activations by weight_dtype, dtype of Face Vid2vid
TABLE = [
    ("CPU", False, False, {"default": (FP32, FP32), "fp16": (FP16, FP32), "bf16": (BF16, FP32), "fp32": (FP32, FP32)}, FP32),
    ("CUDA from Ampere on, MPS from macOS 14 on", True, True, {"default": (BF16, BF16), "fp16": (FP16, FP16)}, FP16),
    ("CUDA before Ampere, older MPS: no bf16", True, False, {"default": (FP16, FP16), "bf16": (BF16, FP16)}, FP16),
    ("fp16 broken, as of the GTX 16 series", False, False, {"default": (FP32, FP32), "fp16": (FP16, FP32)}, FP32),
]


@pytest.mark.parametrize("name, fp16, bf16, chosen, small", TABLE, ids=[row[0] for row in TABLE])
def test_what_the_loaders_choose(pack, device, tmp_path, name, fp16, bf16, chosen, small):
    device(fp16, bf16)
    path, precision = tiny.dit_file(pack, tmp_path / "tiny.safetensors"), pack("nodes.host.precision")
    for weight_dtype, (weights, activations) in chosen.items():
        model = pack("nodes.host.model").load(path, weight_dtype)
        assert model.model.diffusion_model.blocks[0].attn.qkv.weight.dtype == weights
        assert precision.compute_dtype(model) == activations, f"{name}, {weight_dtype}"
    assert pack("nodes.host.run").small_net_dtype(torch.device("cpu")) == small


def test_fp8_is_for_keeping_only(pack, device, tmp_path):
    """Activations of fp8 weights are in what the device is good at."""
    path = tiny.dit_file(pack, tmp_path / "tiny.safetensors")
    for fp16, bf16, activations in ((False, False, FP32), (True, False, FP16), (True, True, BF16)):
        device(fp16, bf16)
        model = pack("nodes.host.model").load(path, "fp8_e4m3fn")
        assert pack("nodes.host.precision").compute_dtype(model) == activations


def test_face_vid2vid_stays_off_mps(pack, monkeypatch):
    """Metal has no grid_sample of volumes."""
    import comfy.model_management as management

    monkeypatch.setattr(management, "get_torch_device", lambda: torch.device("mps"))
    assert pack("nodes.host.run").small_net_devices()[0] == torch.device("cpu")
    monkeypatch.setattr(management, "get_torch_device", lambda: torch.device("cuda", 0))
    assert pack("nodes.host.run").small_net_devices()[0] == torch.device("cuda", 0)


@pytest.mark.parametrize("node", ["RealPortraitLoadModel", "RealPortraitLoadVid2Vid"])
@pytest.mark.parametrize("weight_dtype", ["int8", "fp64", "", "FP16"])
def test_impossible_ones_are_refused(pack, run_node, node, weight_dtype):
    with refused(pack, f"weight_dtype is '{weight_dtype}'; it must be one of: default, fp32"):
        run_node(node, weights="any.safetensors", weight_dtype=weight_dtype)

"""The Triton kernels compute what the plain expressions do: in Triton's interpreter on the CPU, and on a GPU if there is one.

Run as a program, with TRITON_INTERPRET=1 set before triton is imported, this file prints how far off every case is.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from realportrait_core.config import DiTConfig
from realportrait_core.dit import ClipShape, RealPortraitDiT, fused
from realportrait_core.dit.embed import rope

ROOT = Path(__file__).resolve().parent.parent
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NETWORK = DiTConfig(hidden=48, depth=2, heads=4, control_depth=1, input_sq_size=64, motion_channels=6, motion_widths=(2, 4))


@dataclass(frozen=True)
class Found:
    """How far a kernel is off the exact value, in units of what one rounding to the dtype and float32 sums allow."""

    case: str
    off: float
    plain_off: float  # the same of the plain expressions, which in half precision round at every operation


def cases(device: str) -> Iterator[tuple[str, Callable, tuple]]:
    """Name, function of fused.py, arguments in float32."""
    torch.manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    for C in (240, 1152):  # MINI's, PAPER's
        x = 3 * some(1, 2, 2, C) + 1
        yield f"modulate {C}", fused.modulate, (x, some(1, 2, 1, C), some(1, 2, 1, C))
        yield f"add_gated {C}", fused.add_gated, (x, some(1, 2, 1, C), some(1, 2, 2, C))
    x, row = some(2, 3, 2, 48), some(1, 1, 1, 48)
    for name, function in (("modulate", fused.modulate), ("add_gated", fused.add_gated)):
        third = some(2, 3, 2, 48) if name == "add_gated" else row
        yield f"{name}, one row for all", function, (x, row, third)
        yield f"{name}, a row a clip", function, (x, some(2, 1, 1, 48), third)
        yield f"{name}, a row a frame", function, (x, some(1, 3, 1, 48), third)
        strided = some(48, 2, 2, 3).permute(1, 3, 2, 0)
        yield f"{name}, strided", function, (strided, some(2, 3, 1, 96)[..., ::2], third)
        yield f"{name}, frames of one", function, (some(1, 1, 2, 48).expand(2, 3, 2, 48), row, third)
    for d in (72, 80):  # a head of PAPER, of MINI
        qkv = some(2, 5, 3 * 2 * d)  # (n, s, 3 h d)
        q = qkv.chunk(3, dim=-1)[1].unflatten(-1, (2, d)).transpose(1, 2)  # (n, h, s, d), strided
        turn = rope(5, d, device=device)
        yield f"rms_norm {d}", fused.rms_norm, (q, 1 + some(d))
        yield f"norm, rotate {d}", fused.rotate_and_norm, (q, 1 + some(d), turn, False)
        yield f"rotate, norm {d}", fused.rotate_and_norm, (q, 1 + some(d), turn, True)
    yield "rms_norm, strided channels", fused.rms_norm, (some(3, 2, 7, 16)[..., ::2], some(16)[::2])
    yield "rms_norm, tiny values", fused.rms_norm, (1e-3 * some(1, 1, 3, 8), some(8))  # where eps counts


def to(dtype: torch.dtype, argument):
    """Tensors keep their strides; cos and sin stay float32, but for the exact value."""
    if isinstance(argument, tuple):
        return tuple(part.double() for part in argument) if dtype == torch.float64 else argument
    return argument.to(dtype) if isinstance(argument, Tensor) else argument


def exact(function: Callable, x: Tensor, *others) -> Tensor:
    """In float64, for which RMSNorm and rotate have no form of their own."""
    if function not in (fused.rms_norm, fused.rotate_and_norm):
        return function(x, *others)

    def normed(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * others[0]

    def turned(x: Tensor) -> Tensor:
        (cos, sin), (a, b) = others[1], (x[..., ::2], x[..., 1::2])
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)

    if function is fused.rms_norm:
        return normed(x)
    return normed(turned(x)) if others[2] else turned(normed(x))


def measure(device: str, served: Callable) -> list[Found]:
    """served: replaces kernels_for, to choose where the kernels are used."""
    chosen, found = fused.kernels_for, []
    for dtype in DTYPES:
        for name, function, arguments in cases(device):
            rounded = [to(dtype, argument) for argument in arguments]
            wanted = exact(function, *(to(torch.float64, argument) for argument in rounded))
            fused.kernels_for = lambda *tensors: None
            plain = function(*rounded)
            fused.kernels_for = served
            ours = function(*rounded)
            fused.kernels_for = chosen
            assert ours.dtype == dtype and ours.shape == wanted.shape, name
            allowed = torch.finfo(dtype).eps / 2 * wanted.abs() + 1e-6 * wanted.abs().max()
            found.append(Found(f"{name}, {dtype}", *(float(((y.double() - wanted).abs() / allowed).max()) for y in (ours, plain))))
    return found


def whole_network(served: Callable) -> Found:
    """A step of a small network with kernels in every place, beside the plain one."""
    model = RealPortraitDiT(NETWORK)
    torch.manual_seed(0)
    for value in model.state_dict().values():
        value.normal_(std=0.2)
    shape, z = ClipShape(32, 32, 2, 25.0), torch.randn(1, 2, 4, 4, 4)
    given = (z, torch.full((1, 2), 300.0), shape)
    known = torch.tensor([[True, False]])

    def step() -> Tensor:
        return model(*given, model.encode_reference(z[0, :1], shape), torch.ones(2, 4, 48), known)

    plain, chosen, fused.kernels_for = step(), fused.kernels_for, served
    ours, fused.kernels_for = step(), chosen
    return Found("a whole step", float((ours - plain).abs().max() / plain.abs().max() / 1e-5), 0)


@pytest.fixture(scope="module")
def interpreted() -> list[Found]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: the kernels are not checked")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [Found(**row) for row in json.loads(done.stdout)]


def test_kernels_round_once(interpreted):
    """But for bfloat16, where the interpreter cuts the lower bits off and a GPU rounds: up to twice as far."""
    assert len(interpreted) == 3 * len(list(cases("cpu"))) + 1
    assert not [found for found in interpreted if not found.off <= (2 if "bfloat16" in found.case else 1)]


def test_plain_expressions_are_the_equations(interpreted):
    assert not [found for found in interpreted if "float32" in found.case and not found.plain_off <= 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_kernels_run_on_the_gpu():
    device = torch.device("cuda", 0)
    if fused.kernels_on(device) is None:
        pytest.skip("Triton does not run on this GPU")
    assert not [found for found in measure("cuda:0", fused.kernels_for) if not found.off <= 1]


# ---- which of the two ----


class OnGPU:
    """The attributes of a tensor that kernels_for uses."""

    def __init__(self, dtype=torch.bfloat16, requires_grad=False, index=0, is_cuda=True):
        self.dtype, self.requires_grad, self.is_cuda = dtype, requires_grad, is_cuda
        self.device = torch.device("cuda", index) if is_cuda else torch.device("cpu")


@pytest.fixture
def queried(monkeypatch) -> list[torch.device]:
    """The GPUs for which the kernels are fetched."""
    devices = []
    monkeypatch.setattr(fused, "kernels_on", devices.append)
    return devices


@pytest.mark.parametrize(
    "tensors",
    [
        [OnGPU(is_cuda=False)],
        [OnGPU(torch.float64)],
        [OnGPU(), OnGPU(torch.float32)],
        [OnGPU(), OnGPU(index=1)],
        [OnGPU(), OnGPU(requires_grad=True)],
    ],
    ids=["cpu", "float64", "dtypes differ", "devices differ", "trained"],
)
def test_plain_where_no_kernel_is_supported(queried, tensors):
    assert fused.kernels_for(*tensors) is None and queried == []


def test_plain_while_compiling(queried, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert fused.kernels_for(OnGPU()) is None and queried == []


def test_kernels_on_a_gpu_for_inference(queried):
    fused.kernels_for(OnGPU(), OnGPU())
    with torch.no_grad():
        fused.kernels_for(OnGPU(torch.float16), OnGPU(torch.float16, requires_grad=True))
    assert queried == [torch.device("cuda", 0)] * 2


def test_a_gpu_on_which_no_kernel_runs_is_logged(monkeypatch, caplog):
    """A device that no machine has: whatever the first kernel fails of, the plain expressions are taken."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with caplog.at_level("INFO"):
        assert fused.kernels_on(torch.device("cuda", 99)) is None
    assert "Triton cannot be used on cuda:99" in caplog.text
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert fused.kernels_on(torch.device("cuda", 98)) is None


if __name__ == "__main__":
    from realportrait_core.dit import kernels

    with torch.no_grad():
        rows = [*measure("cpu", lambda *tensors: kernels), whole_network(lambda *tensors: kernels)]
    sys.stdout.write(json.dumps([asdict(row) for row in rows]))

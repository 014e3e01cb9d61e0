"""Out of memory at each stage of the core: smaller pieces, the same result, and what was done in the log."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import PAPER, TOY

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.mapping import maps_ladder, motion_maps
from realportrait_core.animation.rendering import decode_frames, render
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.animation.vid2vid_frames import face_frames, portrait_frames
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.attention import Attention
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InsufficientMemory
from realportrait_core.face.track import FaceTrack
from realportrait_core.memory import Ladder, halves, is_out_of_memory, pieces
from realportrait_core.vae import TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid

FACE = torch.tensor([[40.0, 45], [70, 45], [55, 60], [43, 75], [67, 75]])  # px
FRAMES = 11  # two chunks, and three clips of 4 and one of 2
CLOSE = 1e-3  # of the undisturbed result

pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def vid2vid():
    torch.manual_seed(0)
    return FaceVid2Vid(TOY.vid2vid).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=[TOY.dit, PAPER], ids=["mini", "paper"])
def dit(request):
    torch.manual_seed(0)
    network = RealPortraitDiT(request.param).initialize().eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def keypoints(vid2vid):
    torch.manual_seed(1)
    track = FaceTrack(FACE + torch.arange(FRAMES)[:, None, None], torch.ones(FRAMES, dtype=torch.bool), "")
    with torch.inference_mode():
        return extract_keypoints(vid2vid, torch.rand(1, 120, 110, 3), torch.rand(FRAMES, 120, 110, 3), FACE, track)


@pytest.fixture(scope="module")
def motion(vid2vid, keypoints):
    with torch.inference_mode():
        return motion_maps(vid2vid, drive_keypoints(keypoints), 64)


@pytest.fixture
def fits():
    """fits(module, n): from now on its forward runs out of memory with more than n items. Returns the sizes it was called with."""
    hooks = []

    def limit(module: torch.nn.Module, most: int) -> list[int]:
        sizes = []

        def before(_, given):
            items = given[0]
            sizes.append(len(items))
            if sizes[-1] > most:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {sizes[-1]}.00 GiB.")

        hooks.append(module.register_forward_pre_hook(before))
        return sizes

    yield limit
    for hook in hooks:
        hook.remove()


def warned(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.float() - b.float()).abs().max().item()


# The ladder


def fails_above(most: int):
    """Work on `size` items that fits up to `most`; `tried` are the sizes in the order in which they were tried."""

    def work(size: int) -> int:
        work.tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nIf reserved memory is large, try ...")
        return size

    work.tried = []
    return work


def test_a_size_that_fits_is_found_and_kept(caplog):
    ladder, work = Ladder("Decoding", halves(8)), fails_above(2)
    assert ladder.run(work) == 2 and work.tried == [8, 4, 2]
    assert ladder.run(work) == 2 and work.tried == [8, 4, 2, 2], "the next piece must not run out of memory again"
    assert warned(caplog) == [
        "Decoding: out of memory with 8 frames at once, going on with 4.",
        "Decoding: out of memory with 4 frames at once, going on with 2.",
    ]
    other = fails_above(8)
    assert Ladder("Decoding", halves(8)).run(other) == 8 and other.tried == [8], "another run begins anew"


def test_what_never_fits_ends_in_a_sentence():
    with pytest.raises(
        InsufficientMemory, match=r"Decoding: out of memory even with 1 frame at once \(CUDA.*GiB\.\)\. Close"
    ) as end:
        Ladder("Decoding", halves(8)).run(fails_above(0))
    assert end.value.__context__ is None, "the allocator's error would hold the tensors of the attempt"


def test_the_last_resort_is_taken_once(caplog):
    freed, work = [], fails_above(0)

    def last_resort():
        freed.append(True)
        return "Unloaded 2 models."

    with pytest.raises(InsufficientMemory):
        Ladder("Maps", (2, 1), last_resort=last_resort).run(work)
    assert work.tried == [2, 1, 1] and freed == [True] and warned(caplog)[-1].endswith("1 frame at once. Unloaded 2 models.")


def test_pieces_go_on_where_memory_ran_out():
    ladder, tried = Ladder("Maps", halves(4)), []

    def work(part: slice) -> list[int]:
        tried.append((part.start, part.stop))
        if part.start >= 4 and part.stop - part.start > 2:
            raise MemoryError
        return list(range(part.start, part.stop))

    found = list(pieces(9, ladder, work))
    assert [i for some, _ in found for i in some] == list(range(9)) and [done for _, done in found] == [4, 6, 8, 9]
    assert [done for _, done in pieces(17, Ladder("Maps", (8,)), lambda part: None)] == [8, 15, 17], "no frame alone"
    assert tried == [(0, 4), (4, 7), (4, 6), (6, 8), (8, 9)], "what was done is not done again"


def test_tensors_of_the_failed_attempt_are_gone_before_the_next():
    alive = []

    class Large:  # as a tensor that an attempt made before it ran out of memory
        def __init__(self):
            alive.append(self.__hash__())

        def __del__(self):
            alive.pop()

    def work(size: int) -> int:
        assert not alive, "the traceback of the failed attempt still holds its tensors"
        large = Large()
        if size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return size if large else 0

    assert Ladder("Work", halves(4)).run(work) == 1


@pytest.mark.parametrize(
    "error, is_memory",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"),
            True,
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:88] data. DefaultCPUAllocator: not enough memory: you tried to allocate"),
            True,
        ),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 17.0 GB, other allocations: 1.0 GB, max allowed: 18.1 GB)."),
            True,
        ),
        (RuntimeError("HIP error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Could not allocate tensor with 536870912 bytes. There is not enough GPU video memory available!"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_errors_of_allocators(error, is_memory):
    assert is_out_of_memory(error) == is_memory


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"):
        Ladder("Work", halves(8)).run(lambda size: torch.ones(2, 3) @ torch.ones(2, 3))


# Injected at each stage


def test_poses(vid2vid, keypoints, fits, caplog):
    torch.manual_seed(1)
    track = FaceTrack(FACE + torch.arange(FRAMES)[:, None, None], torch.ones(FRAMES, dtype=torch.bool), "")
    given = torch.rand(1, 120, 110, 3), torch.rand(FRAMES, 120, 110, 3), FACE, track
    sizes = fits(vid2vid.motion, 2)
    found = extract_keypoints(vid2vid, *given)
    assert sizes == [1, 8, 4, 2, 2, 2, 2, 2, 1] and len(warned(caplog)) == 2 and "Poses" in warned(caplog)[0]
    for name, value in vars(keypoints.driver).items():
        assert largest(getattr(found.driver, name), value) <= CLOSE


def test_maps(vid2vid, keypoints, motion, fits, caplog):
    sizes = fits(vid2vid.warping.dense_motion_network, 3)
    done, ladder = [], maps_ladder()
    found = motion_maps(vid2vid, drive_keypoints(keypoints), 64, callback=lambda n, total: done.append(n), ladder=ladder)
    assert max(sizes) == 8 and ladder.sizes[0] == 2 and len(warned(caplog)) == 2 and "Motion maps" in warned(caplog)[0]
    assert done == [2, 4, 6, 8, 10, 11], "the bar counts the frames that are done"
    assert largest(found.maps.f, motion.maps.f) <= CLOSE
    before = len(sizes)
    motion_maps(vid2vid, drive_keypoints(keypoints), 64, ladder=ladder)
    assert max(sizes[before:]) == 2, "the next clip of the run must not run out of memory again"


def test_generator(vid2vid, motion, fits, caplog):
    whole = torch.cat(list(face_frames(vid2vid, motion, 4)))
    pasted = torch.cat(list(portrait_frames(vid2vid, motion, chunk=4)))
    sizes = fits(vid2vid.generator, 1)
    found = list(face_frames(vid2vid, motion, 4))
    assert [len(some) for some in found] == [1] * FRAMES and sizes[:3] == [4, 2, 1] and len(warned(caplog)) == 2
    assert largest(torch.cat(found), whole) <= CLOSE
    assert largest(torch.cat(list(portrait_frames(vid2vid, motion, chunk=4))), pasted) <= CLOSE


def rendered(dit, motion, **changes):
    torch.manual_seed(2)
    return render(
        dit, linear_schedule(), torch.randn(1, 4, 8, 8), motion, **{"steps": 2, "solver": "ddim", "guidance": 1.5, **changes}
    )


def test_motion_mapper(dit, motion, fits, caplog):
    whole = rendered(dit, motion)
    mapper = dit.motion_net if dit.conditioner is None else dit.conditioner.mapper
    sizes = fits(mapper, 1)
    found = rendered(dit, motion)
    assert 4 in sizes and sizes.count(4) == 1 and sizes.count(2) == 1, "it runs out of memory once a size, not in every clip"
    assert len(warned(caplog)) == 2 and "Motion mapper" in warned(caplog)[0]
    assert largest(found, whole) <= CLOSE


def test_attention(dit, motion, caplog):
    """The transformer's attention where no more than 4 queries fit: of 16 in space, of 4 frames in time."""
    whole, attempts = rendered(dit, motion), []
    layers = [module for module in dit.modules() if isinstance(module, Attention)]
    usual = layers[0].attention

    def few(q, k, v):
        attempts.append(q.shape[-2])
        if q.shape[-2] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return usual(q, k, v)

    for layer in layers:
        layer.attention = few
    try:
        found = rendered(dit, motion)
        assert all(layer.attention is few for layer in layers), "the network itself must be left as it was"
    finally:
        for layer in layers:
            layer.attention = usual
    assert attempts.count(16) == 1 and attempts.count(8) == 1, "16 queries, 8, then 4 for the rest of the run"
    assert len(warned(caplog)) == 2 and "Attention" in warned(caplog)[0]
    assert largest(found, whole) <= CLOSE


def test_decoding(fits, caplog):
    torch.manual_seed(0)
    vae, latents = TinyVAE().eval(), torch.randn(FRAMES, 4, 8, 8)
    whole = decode_frames(vae, latents)
    fits(vae.taesd_decoder, 1)
    found = decode_frames(vae, latents)
    assert found.shape == whole.shape and largest(found, whole) <= CLOSE and len(warned(caplog)) == 3
    assert "VAE" in warned(caplog)[0]


def test_nothing_changes_where_memory_suffices(dit, motion, caplog):
    assert torch.equal(rendered(dit, motion), rendered(dit, motion)) and not warned(caplog)


def test_an_error_of_another_kind_is_not_mended(vid2vid, keypoints, caplog):
    broken = replace(drive_keypoints(keypoints), x_d=torch.zeros(FRAMES, 3, 3))
    with pytest.raises(Exception) as end:
        motion_maps(vid2vid, broken, 64)
    assert not isinstance(end.value, InsufficientMemory) and not warned(caplog)


# A real allocator


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process's memory are Linux's")
def test_a_real_allocation_that_fails():
    """A process that may take 150 MB more decodes frames of which eight at once need more, four less."""
    tests = Path(__file__).parent
    told = dict(os.environ, PYTHONPATH=str(tests), MALLOC_MMAP_THRESHOLD_="131072")  # what is freed goes back to the system
    child = subprocess.run([sys.executable, "-c", CHILD], cwd=tests.parent, env=told, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert "eight at once failed" in child.stdout and "VAE's decoding: out of memory with 8 frames at once" in child.stderr
    assert float(child.stdout.split()[-1]) <= CLOSE


CHILD = """
import logging
import torch
from process_memory import allow_more
from realportrait_core.animation.rendering import decode_frames
from realportrait_core.memory import is_out_of_memory
from realportrait_core.vae import TinyVAE

logging.basicConfig(level="WARNING")
torch.set_num_threads(1)
torch.manual_seed(0)
vae, latents = TinyVAE((8, 8, 8, 8)).eval(), torch.randn(8, 4, 64, 64)
with torch.inference_mode():
    whole = decode_frames(vae, latents)
    allow_more(150_000_000)
    try:
        vae.decode(latents)
    except Exception as error:
        assert is_out_of_memory(error), repr(error)
        print("eight at once failed:", type(error).__name__)
    found = decode_frames(vae, latents)
print(max((a - b).abs().max().item() for a, b in zip(found, whole)))
"""

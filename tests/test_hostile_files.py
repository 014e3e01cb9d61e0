"""Files made to do harm, in every slot that opens one: lying headers, claims of terabytes, code in pickles, other programs' files.

Each test shows the fault first: that the file really claims so much, really runs code where it is unpickled, really is another's.
"""

import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sound_files import LOADERS, stitching, write_all

from realportrait_core.checkpoint import bundle_metadata, read_header, read_safetensors
from realportrait_core.dit.checkpoint import CONFIG_KEY, load_dit
from realportrait_core.errors import InputError, RealPortraitError, WeightsError
from realportrait_core.motion_file import load_motion
from realportrait_core.motion_file.template import read_template
from realportrait_core.vae.tiny import TinyVAE, VAEConfig
from realportrait_core.vid2vid.checkpoint import load_vid2vid

TESTS = Path(__file__).resolve().parent
SLOTS = {slot: LOADERS["tiny_vae" if slot == "vae" else slot] for slot in ("dit", "vid2vid", "stitching", "vae", "motion")}


def written(path: Path, header: object, buffer: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file of this header, a dict or the JSON text itself, whose length may be another than it says."""
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + buffer)
    return path


def entry(begin: int, end: int, shape: list | None = None, kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


# Headers that lie


LIES = {
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "b overlaps the one before"),
    "the same bytes twice": ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "b overlaps the one before"),
    "gap": ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "b leaves a gap of 4 bytes"),
    "gap at the start": ({"a": entry(4, 8)}, 8, "a leaves a gap of 4 bytes"),
    "bytes at the end": ({"a": entry(0, 4)}, 64, "60 bytes follow its last tensor"),
    "too few bytes": ({"a": entry(0, 400)}, 40, "is cut short: .* bytes of"),
    "a shape of more": ({"a": entry(0, 4, [10**12])}, 4, r"a of the type F32 and the shape \[1000000000000\] has 4 bytes"),
    "terabytes": ({"a": entry(0, 4 * 10**12, [10**12])}, 4, "is cut short: .* bytes of 4000000000"),
    "a product of 0": ({"a": entry(0, 0, [10**12, 0])}, 0, "has no values and the shape"),
    "backwards": ({"a": entry(8, 0, [2])}, 8, "has -8 bytes"),
    "negative": ({"a": entry(0, 4, [-1])}, 4, "sizes that are no whole numbers"),
    "a fraction": ({"a": entry(0, 4, [1.0])}, 4, "sizes that are no whole numbers"),
    "another type": ({"a": entry(0, 4, [1], "F64")}, 4, "has 4 bytes"),
    "rank": ({"a": entry(0, 4, [1] * 17)}, 4, "17 dimensions"),
    "twice": ('{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": []}', 1, "a is there twice"),
    "no text": ({"__metadata__": {"realportrait": 7}}, 0, "metadata are not texts"),
    "NaN": ('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', 4, "it holds NaN"),
    "nested": ("[" * 100_000, 0, "header cannot be read"),
    "a list": ([1, 2], 0, "header cannot be read"),
    "UTF-16": ('{"a": 1}'.encode("utf-16").decode("latin1"), 0, "header cannot be read|not a safetensors file"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_what_is_wrong(tmp_path, lie):
    header, size, said = LIES[lie]
    path = written(tmp_path / "lies.safetensors", header, bytes(size))
    with pytest.raises(WeightsError, match=f"lies.safetensors .*({said})"):
        read_header(path)
    for slot, load in SLOTS.items():
        with pytest.raises(RealPortraitError, match="lies.safetensors"):
            load(path)


def test_too_many_tensors_are_refused(tmp_path):
    path = written(tmp_path / "many.safetensors", {f"{i}": entry(0, 0, [0]) for i in range(50_001)})
    assert len(load_file(path)) == 50_001  # safetensors itself takes them
    with pytest.raises(WeightsError, match="50001 tensors, at most 50000"):
        read_header(path)


def test_a_header_of_4_gb_is_refused_before_it_is_read(tmp_path):
    """The file really has that many bytes, as far as its system tells; none of them is on the disk."""
    path = written(tmp_path / "huge.safetensors", "{", length=4 * 2**30)
    with path.open("r+b") as file:
        file.truncate(5 * 2**30)
    assert path.stat().st_size > 4 * 2**30
    tracemalloc.start()
    for load in SLOTS.values():
        with pytest.raises(RealPortraitError, match="huge.safetensors"):
            load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.4, 0.9, 0.9999])
@pytest.mark.parametrize("slot", ["dit", "vid2vid", "stitching", "vae", "motion"])
def test_a_download_cut_short_is_refused_in_every_slot(sound, tmp_path, slot, kept):
    whole = sound[slot].read_bytes()
    path = tmp_path / "short.safetensors"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(SafetensorError):
        load_file(path)
    with pytest.raises(RealPortraitError, match="short.safetensors"):
        SLOTS[slot](path)


# What a file claims, and what would have to be allocated for it


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    """A small file for each slot, which takes it."""
    paths = write_all(tmp_path_factory.mktemp("sound"))
    return {slot: paths["tiny_vae" if slot == "vae" else slot] for slot in SLOTS}


def thin_layers(path: Path) -> Path:
    """Two layers of 4 MB, between which a network needs one of 4 TB."""
    thin = {"mlp.0.weight": torch.zeros(10**6, 1), "mlp.0.bias": torch.zeros(10**6), "mlp.2.weight": torch.zeros(10**6, 1)}
    save_file(stitching(thin), path)
    return path


def wide_vae(path: Path) -> Path:
    save_file(TinyVAE().state_dict(), path, bundle_metadata("vae", VAEConfig((2**20,) * 4)))
    return path


def changed_config(source: Path, target: Path, **changes) -> Path:
    state, metadata = read_safetensors(source)
    info = json.loads(metadata["realportrait"])
    info["config"] |= changes
    save_file(state, target, {"realportrait": json.dumps(info)})
    return target


def frame(**changes) -> dict:
    zeros = {"scale": np.ones((1, 1)), "R": np.eye(3)[None], "exp": np.zeros((1, 5, 3)), "t": np.zeros((1, 3))}
    return {name: value.astype(np.float32) for name, value in (zeros | changes).items()}


def text_bomb() -> bytes:
    """A text of 1 MB that becomes bytes 100,000 times: 100 GB."""
    again = b"c_codecs\nencode\n(h\x00Vlatin1\ntR"
    return b"(X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x00" + again * 100_000 + b"l."


def repeated_arrays() -> bytes:
    """20,000 frames of one array of 4 MB: 80 GB. The first frame is small, so that it promises nothing."""
    one = frame(exp=np.zeros((1, 350_000, 3)))
    return pickle.dumps({"motion": [frame(), *[one] * 20_000]}, 4)


def nested_count() -> bytes:
    """A number of frames that is a tuple of tuples; written out it has 2^60 characters."""
    count = ()
    for _ in range(60):
        count = (count, count)
    return pickle.dumps({"motion": [frame()], "n_frames": count}, 4)


def claims(folder: Path, sound: dict[str, Path]) -> list[tuple[str, Path]]:
    """(slot, file) of each."""
    files = [
        ("stitching", thin_layers(folder / "thin.safetensors")),
        ("vae", wide_vae(folder / "wide.safetensors")),
        ("vid2vid", changed_config(sound["vid2vid"], folder / "pools.safetensors", appearance_down=2**31 - 1)),
        ("vid2vid", changed_config(sound["vid2vid"], folder / "crop.safetensors", crop_size=2**31 - 1)),
        ("vid2vid", changed_config(sound["vid2vid"], folder / "keypoints.safetensors", num_kp=2**31 - 1)),
        ("dit", changed_config(sound["dit"], folder / "depth.safetensors", depth=2**31 - 1)),
        ("dit", changed_config(sound["dit"], folder / "clip.safetensors", clip_frames=2**31 - 1)),
        ("motion", changed_config(sound["motion"], folder / "frames.safetensors", frames=2**31 - 1)),
        ("motion", changed_config(sound["motion"], folder / "side.safetensors", height=2**31 - 1, width=2**31 - 1)),
    ]
    bombs = {"text": text_bomb(), "arrays": repeated_arrays(), "nested": nested_count(), "dicts": b"(" + b"}" * 50_000_000 + b"l."}
    for name, data in bombs.items():
        (folder / f"{name}.pkl").write_bytes(data)
        files.append(("template", folder / f"{name}.pkl"))
    with (folder / "endless.pkl").open("wb") as file:
        file.truncate(100 * 2**30)
    return [*files, ("template", folder / "endless.pkl")]


CHILD = """
import conftest, json, pickle, sys
import test_hostile_files as t
from sound_files import KeypointMLP
import torch
from process_memory import allow_more
slots = t.SLOTS | {"template": t.read_template}
files = json.loads(sys.argv[1])
allow_more(2**30)
answers = {}
for name, bomb in (("square", lambda: KeypointMLP([10**6, 10**6])), ("text", lambda: pickle.load(open(sys.argv[2], "rb")))):
    try:
        bomb()
        answers[name] = "fits"
    except (MemoryError, RuntimeError) as error:
        answers[name] = "does not fit"
for slot, path in files:
    try:
        slots[slot](path)
        answers[path] = "taken"
    except t.RealPortraitError as error:
        answers[path] = "refused: " + str(error)
    except BaseException as error:
        answers[path] = "FAILED: " + type(error).__name__ + str(error)[:200]
print(json.dumps(answers))
"""


def test_what_a_file_claims_is_checked_before_it_is_allocated(tmp_path, sound):
    """In a process that may take 1 GB more than at its start. What the files claim really does not fit into it."""
    pytest.importorskip("resource")
    if not Path("/proc/self/status").exists():
        pytest.skip("the size of a process is read as on Linux")
    files = [(slot, str(path)) for slot, path in claims(tmp_path, sound)]
    told = dict(os.environ, PYTHONPATH=str(TESTS), OMP_NUM_THREADS="1")
    command = [sys.executable, "-c", CHILD, json.dumps(files), str(tmp_path / "text.pkl")]
    done = subprocess.run(command, env=told, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers.pop("square") == answers.pop("text") == "does not fit"
    assert len(answers) == len(files) and all(answer.startswith("refused") for answer in answers.values()), answers
    said = {Path(path).name: answer for path, answer in answers.items()}
    assert "at most" in said["endless.pkl"] and "instructions" in said["dicts.pkl"] and "bytes of its texts" in said["text.pkl"]
    assert "20001 frames" not in said["arrays.pkl"] and "exp of frame 1 has 1050000 numbers" in said["arrays.pkl"]


# Wrong types, NaN


@pytest.mark.parametrize("slot", ["dit", "vid2vid", "stitching", "vae"])
@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool])
def test_whole_numbers_for_weights_are_refused_in_every_slot(sound, tmp_path, slot, kind):
    state, metadata = read_safetensors(sound[slot])
    largest = max(state, key=lambda key: state[key].numel())
    save_file(state | {largest: state[largest].to(kind)}, tmp_path / "whole.safetensors", metadata)
    with pytest.raises(WeightsError, match=f"whole.safetensors|whole numbers.*{largest}"):
        SLOTS[slot](tmp_path / "whole.safetensors")


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused_in_every_slot(sound, tmp_path, slot, value):
    state, metadata = read_safetensors(sound[slot])
    name = next(key for key, tensor in state.items() if tensor.is_floating_point() and tensor.numel() > 3)
    state[name].view(-1)[3] = value
    path = tmp_path / "nan.safetensors"
    save_file(state, path, metadata)
    assert not torch.isfinite(load_file(path)[name]).all()  # safetensors does not mind
    with pytest.raises(RealPortraitError, match=f"nan.safetensors .*1 of {state[name].numel()} values of (its )?{name} "):
        SLOTS[slot](path)


def test_what_is_infinite_in_float32_is_refused(sound, tmp_path):
    state, metadata = read_safetensors(sound["vid2vid"])
    name = "warping.fourth.bias"
    save_file(state | {name: state[name].double() + 1e300}, tmp_path / "large.safetensors", metadata)
    with pytest.raises(WeightsError, match=f"values of {name} are not finite"):
        load_vid2vid(tmp_path / "large.safetensors")


def test_types_that_are_not_read_are_named(tmp_path):
    path = written(tmp_path / "odd.safetensors", {"a": entry(0, 8, [1], "C64"), "b": entry(8, 12, [8], "F4")}, bytes(12))
    assert read_header(path).dtypes == {"a": "C64", "b": "F4"}  # it can still be told what kind of file it is
    with pytest.raises(WeightsError, match="2 of its tensors are of the type C64, a, b among them. RealPortrait reads F64, F32"):
        read_safetensors(path)


def test_a_config_in_a_tensor_that_is_no_text_is_refused(sound, tmp_path):
    """ComfyUI's save nodes drop metadata, so that the config travels as bytes."""
    state, metadata = read_safetensors(sound["dit"])
    for odd in (
        torch.tensor([255, 254], dtype=torch.uint8),
        torch.tensor([0.5]),
        torch.tensor([300]),
        torch.zeros(1, 3).bfloat16(),
    ):
        save_file(state | {CONFIG_KEY: odd}, tmp_path / "odd.safetensors")
        with pytest.raises(WeightsError, match="odd.safetensors cannot be used as RealPortrait weights"):
            load_dit(tmp_path / "odd.safetensors")


# Other programs' files in each slot


def with_keys(*keys: str):
    return lambda path: save_file({key: torch.zeros(1) for key in keys}, path)


FOREIGN = {
    "Stable Diffusion checkpoint": (
        with_keys("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.final_layer_norm.bias"),
        "models/checkpoints",
    ),
    "Stable Diffusion UNet": (with_keys("down_blocks.0.resnets.0.time_emb_proj.weight"), "models/diffusion_models"),
    "a LoRA": (with_keys("lora_unet_down_blocks_0.lora_down.weight", "lora_unet_down_blocks_0.lora_up.weight"), "models/loras"),
    "ControlNet": (with_keys("controlnet_cond_embedding.conv_in.weight"), "models/controlnet"),
    "LivePortrait's appearance extractor": (with_keys("resblocks_3d.3dr0.conv1.weight"), "Face Vid2vid slot"),
    "LivePortrait's motion extractor": (with_keys("detector.fc_kp.weight"), "Face Vid2vid slot"),
    "text encoder": (with_keys("text_model.embeddings.token_embedding.weight"), "reads no text"),
    "something that RealPortrait does not recognise": (with_keys("head.weight"), "where it came from"),
    "GGUF": (lambda path: path.write_bytes(b"GGUF\x03\0\0\0" + bytes(100)), "reads .safetensors"),
    "Git LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "git lfs pull",
    ),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html><html></html>"), "direct link"),
    "index of a sharded file": (lambda path: path.write_text('{"metadata": {}, "weight_map": {}}'), "Download these"),
}
# What a slot may take or asks the neighbours for.
OWN = {
    ("vae", "Stable Diffusion checkpoint"),
    *(("vid2vid", f"LivePortrait's {part} extractor") for part in ("appearance", "motion")),
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("slot", ["dit", "vid2vid", "stitching", "vae"])
def test_another_programs_file_is_named_with_where_it_belongs(tmp_path, slot, what):
    write, where = FOREIGN[what]
    path = tmp_path / "mine.safetensors"
    write(path)
    with pytest.raises(WeightsError) as caught:
        SLOTS[slot](path)
    if (slot, what) not in OWN:
        assert what in str(caught.value) and where in str(caught.value) and "mine.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 900


# Pickles


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


UNPICKLES = {
    "pickle": "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))",
    "torch": "import torch, sys; torch.load(sys.argv[1], weights_only=False)",
}


@pytest.mark.parametrize("kind, protocol", [("pickle", 0), ("pickle", 2), ("pickle", 4), ("pickle", 5), ("torch", 2)])
def test_nothing_that_runs_in_a_pickle_runs_here(tmp_path, kind, protocol):
    """Renamed to .safetensors, or as .pth, .ckpt and .pkl, in every slot; a child shows what unpickling it does."""
    trap, source = tmp_path / "trap", tmp_path / "payload"
    if kind == "torch":
        torch.save(Touch(trap), source)
    else:
        source.write_bytes(pickle.dumps(Touch(trap), protocol))
    if protocol in (2, 4):  # a child for each kind
        done = subprocess.run([sys.executable, "-c", UNPICKLES[kind], str(source)], capture_output=True, text=True)
        assert trap.exists(), done.stderr
        trap.unlink()
    for suffix in (".safetensors", ".pth", ".ckpt", ".pkl"):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(source.read_bytes())
        for slot, load in [*SLOTS.items(), ("template", read_template)]:
            with pytest.raises(RealPortraitError, match="weights"):
                load(path)
    assert not trap.exists()


# Motion files


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(frames=2**31 - 1), "frames, 5 keypoints.*above 1000000 frames"),
        (dict(frames=2**40), "frames = 1099511627776.*too large"),
        (dict(keypoints=10**6), "1000000 keypoints"),
        (dict(height=2**20), "1048576 px"),
        (dict(fps=1e9), "frame rate is 1000000000.0; it must be above 0 and at most 1000"),
        (dict(fps=10**400), "too large"),
        (dict(fps=float("inf")), "fps = inf"),
        (dict(fps=float("nan")), "fps = nan"),
        (dict(frames=[4]), r"frames = \[4\]"),
        (dict(frames=True), "frames = True"),
        (dict(encoder="../../etc/passwd"), "16 hexadecimal digits"),
        (dict(encoder={"a": ["b"] * 10**4}), "encoder = {'a'"),
        (dict(path="/etc/passwd"), "does not know: path"),
    ],
)
def test_a_motion_file_that_claims_anything_is_refused(sound, tmp_path, changes, said):
    path = changed_config(sound["motion"], tmp_path / "evil.safetensors", **changes)
    with pytest.raises(InputError, match=f"evil.safetensors cannot be used as a motion file.*{said}") as caught:
        load_motion(path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.int32, torch.bool])
@pytest.mark.parametrize("name", ["canonical", "rotation", "crop", "points", "present"])
def test_a_motion_of_other_types_is_loaded_or_refused(sound, tmp_path, name, kind):
    state, metadata = read_safetensors(sound["motion"])
    save_file(state | {name: state[name].to(kind)}, tmp_path / "types.safetensors", metadata)
    fits = kind == torch.bool if name == "present" else kind in (torch.float16, torch.bfloat16)
    if fits:
        assert len(load_motion(tmp_path / "types.safetensors")) == 3
    else:
        with pytest.raises(InputError, match=f"types.safetensors cannot be used as a motion file.*{name} is of the type {kind}"):
            load_motion(tmp_path / "types.safetensors")


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("expression", 1e30, "largest value of its expression is 1e.30"),
        ("translation", -1e6, "largest value of its translation is 1e.06"),
        ("scale", 1e5, "largest value of its scale is 100000"),
        ("points", 1e30, "largest value of its points"),
        ("crop", 1e-12, "its inverse|the inverse has the value"),
    ],
)
def test_motion_of_another_size_than_motion_is_refused(sound, tmp_path, name, value, said):
    """Finite in the file, it would overflow in the maps: the frames would be black."""
    state, metadata = read_safetensors(sound["motion"])
    if name == "crop":
        state[name][0, 0] = state[name][1, 1] = value
    else:
        state[name].view(-1)[1] = value
    save_file(state, tmp_path / "far.safetensors", metadata)
    with pytest.raises(InputError, match=f"far.safetensors cannot be used as a motion file.*{said}"):
        load_motion(tmp_path / "far.safetensors")

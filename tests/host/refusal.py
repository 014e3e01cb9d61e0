"""What a node refuses, as an error of the pack that the host has loaded."""

import pytest


def refused(pack, match: str, kind: str = "InputError"):
    """A context that fails unless an error of this kind, whose text matches, is raised in it."""
    return pytest.raises(getattr(pack("realportrait_core.errors"), kind), match=match)

"""What newer hosts know of a node and ComfyUI 0.3.75 does not: arguments that are given only where the host takes them."""

import inspect

from comfy_api.latest import io

WIDGETS = (io.Boolean, io.Combo, io.Float, io.Int, io.String)


def advanced() -> dict[str, bool]:
    """For an input that few users need, `io.Int.Input(..., **advanced())`: newer hosts fold these away until they are asked for."""
    return {"advanced": True} if all(_takes(kind.Input, "advanced") for kind in WIDGETS) else {}


def aliases(*words: str) -> dict[str, list[str]]:
    """What else a node is searched by, `io.Schema(..., **aliases("talking head"))`; 0.3.75 searches names alone."""
    return {"search_aliases": list(words)} if _takes(io.Schema, "search_aliases") else {}


def _takes(call, argument: str) -> bool:
    return argument in inspect.signature(call).parameters

"""Whole prompts in this process, by the host's own executor: what is checked, cached and cancelled is the host's doing."""

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "workflows" / "api"
NOT_OF_A_MOTION = {"RealPortraitMotionMaps", "RealPortraitSampler", "VAEDecode", "CreateVideo", "SaveVideo"}
EXTRAS = ("nodes_video", "nodes_custom_sampler", "nodes_preview_any", "nodes_latent", "nodes_images", "nodes_audio")


@dataclass(frozen=True)
class Ended:
    """How one prompt ended."""

    status: str  # success, error, interrupted, rejected
    said: str  # of an error
    kind: str  # the error's class
    cached: set[str]  # ids of the nodes that did not run
    outputs: dict  # node id -> what it showed or saved


class Listener:
    """What the executor asks of the host's server: somewhere to send what the browser would be told."""

    def __init__(self):
        self.client_id = None
        self.last_node_id = None
        self.sockets_metadata: dict = {}
        self.tell: Callable[[str, dict], None] | None = None

    def send_sync(self, event: str, data: dict, _client=None) -> None:
        if self.tell is not None:
            self.tell(event, data)


class Executor:
    """One host's executor with its cache; a new one is a host that was started again."""

    def __init__(self, nodes):
        import execution

        self.nodes, self.listener = nodes, Listener()
        self.executor = execution.PromptExecutor(
            self.listener, cache_type=execution.CacheType.CLASSIC, cache_args={"ram": 0, "lru": 0}
        )

    def run(self, prompt: dict, tell: Callable[[str, dict], None] | None = None) -> Ended:
        """tell(event, data): called as the browser is told, from inside the run."""
        import execution

        name = uuid.uuid4().hex
        valid, error, outputs, wrong = asyncio.run(execution.validate_prompt(name, prompt, None))
        if not valid:
            said = "; ".join(f"{e['message']}: {e['details']}" for found in wrong.values() for e in found["errors"])
            return Ended("rejected", said or str(error), "", set(), {})
        self.listener.tell = tell
        self.executor.execute(prompt, name, {"client_id": "test"}, outputs)
        messages = dict(self.executor.status_messages)
        status = self.executor.status_messages[-1][0].removeprefix("execution_")
        failed = messages.get("execution_error", {})
        cached = set(messages["execution_cached"]["nodes"])
        shown = self.executor.history_result["outputs"]
        return Ended(status, failed.get("exception_message", "").strip(), failed.get("exception_type", ""), cached, shown)

    def output(self, node: str, number: int = 0):
        """What a node of the last prompt gave, out of the host's cache."""
        kept = self.executor.caches.outputs.get(node)
        return kept.outputs[number][0]


def load_extras(nodes) -> None:
    """The host's own nodes that the workflows use."""
    for name in EXTRAS:
        file = Path(nodes.__file__).parent / "comfy_extras" / f"{name}.py"
        assert asyncio.run(nodes.load_custom_node(str(file), module_parent="comfy_extras")), name


def workflow(name: str, frames: int = 2, steps: int = 1, seed: int = 1) -> dict:
    """An API workflow with the pack's own portrait, driving video and weights, as small as it works."""
    made = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    for entry in made.values():
        inputs = entry["inputs"]
        if entry["class_type"] in ("RealPortraitLoadDrivingVideo", "RealPortraitStreamDrivingVideo"):
            inputs["frames"] = frames
        for widget, value in (("steps", steps), ("seed", seed)):
            if isinstance(inputs.get(widget), int):
                inputs[widget] = value
    if name == "animate_saved_motion":  # the example's motion is long: its rendering is the other workflows' matter
        for node in [node for node, entry in made.items() if entry["class_type"] in NOT_OF_A_MOTION]:
            del made[node]
        (last,) = (node for node, entry in made.items() if entry["class_type"] == "RealPortraitEditMotion")
        made["shown"] = {"class_type": "PreviewAny", "inputs": {"source": [last, 0]}}
    return made

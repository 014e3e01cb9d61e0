"""What the browser does, from Python: upload, queue a workflow, follow it over the websocket, fetch the results."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

PREVIEW_IMAGE = 1  # id of a binary message of the host: a preview picture
SILENCE_LIMIT = 1200  # s without any message; one step of a large clip on a slow CPU takes less


class ClientError(RuntimeError):
    """The server went away, or sent nothing for too long."""


@dataclass(frozen=True)
class Event:
    """One websocket message."""

    kind: str  # execution_start, executing, progress, progress_state, executed, preview, execution_error, ...
    data: dict  # of a preview: {"image": bytes}
    time: float  # s, of a monotonic clock


@dataclass
class Run:
    """What became of one queued workflow."""

    prompt_id: str
    status: str = "rejected"  # success, error, interrupted; rejected: all or part of it was not queued
    error: str = ""  # the text that the user sees
    error_node: str = ""  # id of the node that it is shown at
    events: list[Event] = field(default_factory=list)
    outputs: dict = field(default_factory=dict)  # node id -> what it showed or saved

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def files(self) -> list[dict]:
        """All that was saved: dicts with filename, subfolder, type."""
        shown = [entry for output in self.outputs.values() for entries in output.values() for entry in entries]
        return [entry for entry in shown if isinstance(entry, dict) and entry.get("type") == "output"]

    def seconds(self, node: str) -> float:
        """How long a node ran; 0 where it came out of the host's cache."""
        marks = [(event.data.get("node"), event.time) for event in self.of("executing")]
        marks.append((None, self.events[-1].time if self.events else 0.0))
        return sum(after - start for (name, start), (_, after) in zip(marks, marks[1:]) if name == node)


class ComfyClient:
    """One server, by its address (http://127.0.0.1:8188)."""

    def __init__(self, url: str):
        self.url = url

    def get(self, path: str) -> dict:
        """A GET that answers JSON, such as /object_info or /history."""
        return json.loads(asyncio.run(self._request("GET", path)))

    def post(self, path: str, body: dict) -> bytes:
        return asyncio.run(self._request("POST", path, json=body))

    def upload(self, file: Path) -> str:
        """Put a file into the server's input folder; returns the name that the loaders know it by."""
        form = aiohttp.FormData()
        form.add_field("image", file.read_bytes(), filename=file.name)
        form.add_field("overwrite", "true")
        return json.loads(asyncio.run(self._request("POST", "/upload/image", data=form)))["name"]

    def download(self, entry: dict) -> bytes:
        """The bytes of one entry of Run.files()."""
        return asyncio.run(self._request("GET", "/view", params={key: entry[key] for key in ("filename", "subfolder", "type")}))

    def forget(self) -> None:
        """Unload all models and drop the cache of node outputs."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        # The host does so at the latest after the prompt that it takes up next: one that costs nothing.
        self.queue({"1": {"class_type": "PreviewAny", "inputs": {"source": "freed"}}})

    def queue(
        self, workflow: dict, on_event: Callable[[Event], None] | None = None, interrupt_when: Callable[[Event], bool] | None = None
    ) -> Run:
        """Queue an API workflow and follow it to its end. interrupt_when: /interrupt after the first event it is true of."""
        try:
            return asyncio.run(self._queue(workflow, on_event, interrupt_when))
        except aiohttp.ClientError as error:
            raise ClientError(f"ComfyUI went away: {error}") from error

    async def _queue(self, workflow, on_event, interrupt_when) -> Run:
        client = uuid.uuid4().hex
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0) as socket:
                async with session.post(f"{self.url}/prompt", json={"prompt": workflow, "client_id": client}) as answer:
                    reply = await answer.json()
                    run = Run(reply.get("prompt_id", ""))
                    if answer.status != 200:
                        run.error, run.error_node = rejection(reply)
                        return run
                run.status = "running"
                while run.status == "running":
                    event = await self._receive(socket)
                    if event.data.get("prompt_id", run.prompt_id) != run.prompt_id:
                        continue
                    run.events.append(event)
                    if on_event:
                        on_event(event)
                    if interrupt_when and interrupt_when(event):
                        interrupt_when = None
                        await (await session.post(f"{self.url}/interrupt", json={"prompt_id": run.prompt_id})).release()
                    if event.kind == "execution_success":
                        run.status = "success"
                        if reply.get("node_errors"):  # the host runs the outputs that are valid, and leaves the others out
                            run.status = "rejected"
                            run.error, run.error_node = rejection(reply)
                    elif event.kind == "execution_interrupted":
                        run.status = "interrupted"
                    elif event.kind == "execution_error":
                        run.status = "error"
                        run.error = event.data["exception_message"].strip()
                        run.error_node = event.data["node_id"]
            run.outputs = await self._outputs(session, run.prompt_id)
        return run

    async def _receive(self, socket) -> Event:
        try:
            message = await asyncio.wait_for(socket.receive(), SILENCE_LIMIT)
        except asyncio.TimeoutError as error:
            raise ClientError(f"ComfyUI sent nothing for {SILENCE_LIMIT} s.") from error
        now = time.monotonic()
        if message.type == aiohttp.WSMsgType.TEXT:
            reply = json.loads(message.data)
            return Event(reply["type"], reply.get("data") or {}, now)
        if message.type == aiohttp.WSMsgType.BINARY:
            kind = int.from_bytes(message.data[:4], "big")
            # A preview: its id, the picture's format, the picture.
            return Event("preview", {"image": message.data[8:]}, now) if kind == PREVIEW_IMAGE else Event("binary", {}, now)
        raise ClientError("ComfyUI closed the connection.")

    async def _outputs(self, session, prompt_id: str) -> dict:
        for _ in range(100):  # the history may lag the last message by some milliseconds
            async with session.get(f"{self.url}/history/{prompt_id}") as answer:
                history = await answer.json()
            if prompt_id in history:
                return history[prompt_id]["outputs"]
            await asyncio.sleep(0.05)
        return {}

    async def _request(self, method: str, path: str, **body) -> bytes:
        async with aiohttp.ClientSession() as session:
            async with session.request(method, self.url + path, **body) as answer:
                content = await answer.read()
                if answer.status >= 400:
                    content = content[:300].decode(errors="replace")
                    raise ClientError(f"{method} {path} was answered with {answer.status}: {content}")
                return content


def rejection(reply: dict) -> tuple[str, str]:
    """What is wrong with a workflow that the host did not accept, and at which node first."""
    wrong = [(node, error) for node, found in reply.get("node_errors", {}).items() for error in found["errors"]]
    if not wrong:
        return reply.get("error", {}).get("message", str(reply)), ""
    return "; ".join(f"{error['message']}: {error['details']}" for _, error in wrong), wrong[0][0]

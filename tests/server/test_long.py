"""Animate Long Video on the real server: as long as its driving video; cancelled or killed, it goes on with its next clip."""

import io
import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
LONG = "animate_long_video"
STEPS, CLIPS, FRAMES = 3, 2, 18


def long_workflow(file: str, weights: Path) -> dict:
    """With the host's Load Video, which hands the file on instead of its frames."""
    queued = json.loads((ROOT / "workflows" / "api" / f"{LONG}.json").read_text(encoding="utf-8"))
    queued["2"] = {"class_type": "LoadVideo", "inputs": {"file": file}}
    queued["3"]["inputs"]["weights"] = weights.name
    queued["6"]["inputs"].update(driving_video=["2", 0], steps=STEPS)
    return queued


def ticks(done) -> list[int]:
    """The steps that the node reported, of all clips of the video."""
    return [
        event.data["value"] for event in done.of("progress") if event.data["node"] == "6" and event.data["max"] == STEPS * CLIPS
    ]


def is_step(event) -> bool:
    return event.kind == "progress" and event.data["node"] == "6" and event.data["max"] == STEPS * CLIPS


def of_the_second_clip(event) -> bool:
    return is_step(event) and event.data["value"] == STEPS + 2


def video_of(client, done) -> bytes:
    assert done.status == "success", done.error
    (video,) = (entry for entry in done.files() if entry["filename"].endswith(".mp4"))
    return client.download(video)


def frames_of(video: bytes) -> np.ndarray:
    import av

    with av.open(io.BytesIO(video)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_as_many_frames_out_as_in_with_sound(client, workflow):
    """The workflow as it is delivered, with small weights; Save Video has copied what the node wrote."""
    import av

    done = client.queue(workflow(LONG, driving="with_sound.mp4"))
    with av.open(io.BytesIO(video_of(client, done))) as video:
        picture, sound = video.streams.video[0], video.streams.audio[0]
        assert (picture.codec.name, picture.average_rate, picture.frames) == ("h264", Fraction(25, 2), 5)
        assert float(sound.duration * sound.time_base) == pytest.approx(5 / 12.5, abs=0.15)
    assert "5 frames in 1 clips" in str(done.outputs["8"])
    (shown,) = done.outputs["6"]["images"]
    assert shown["type"] == "temp" and done.outputs["6"]["text"][0] in done.outputs["8"]["text"][0]


def test_cancelled_and_queued_again(client, server, small_weights, two_clips):
    """Within a step of the second clip; what is finished is not made again, and the video is that of a run without a break."""
    queued = long_workflow(client.upload(two_clips), small_weights)
    stopped = client.queue(queued, interrupt_when=of_the_second_clip)
    assert stopped.status == "interrupted" and not stopped.files()
    assert ticks(stopped)[-1] <= STEPS + 3
    again = client.queue(queued)
    assert ticks(again)[0] == STEPS + 1 and "Taken up again at frame 16" in str(again.outputs["8"])
    shutil.rmtree(server.folder / "output" / "realportrait_long")
    client.forget()
    whole = client.queue(queued)
    assert ticks(whole)[0] == 1 and "Taken up" not in str(whole.outputs["8"])
    wanted = frames_of(video_of(client, whole))
    assert len(wanted) == FRAMES
    np.testing.assert_array_equal(frames_of(video_of(client, again)), wanted)


@pytest.mark.slow
def test_killed_and_queued_again_on_a_new_server(host_sources, small_weights, two_clips):
    """SIGKILL while the second clip is sampled."""
    from comfy_client import ClientError, ComfyClient
    from environment import Environment
    from headless import HeadlessComfyUI

    environment = Environment(Path(sys.executable), host_sources)
    with HeadlessComfyUI(environment, {f"realportrait/{small_weights.name}": small_weights}) as server:
        client = ComfyClient(server.url)
        queued = long_workflow(client.upload(two_clips), small_weights)

        def kill(event) -> None:
            if of_the_second_clip(event):
                server.kill()

        with pytest.raises((ClientError, OSError)):
            client.queue(queued, on_event=kill)
        (run,) = (server.folder / "output" / "realportrait_long").iterdir()
        assert not (run / "video.mp4").exists() and not list((server.folder / "output").glob("RealPortrait/*"))

        server.start_again()
        client = ComfyClient(server.url)
        again = client.queue(queued)
        assert ticks(again)[0] == STEPS + 1 and "Taken up again at frame 16" in str(again.outputs["8"])
        shutil.rmtree(run)
        client.forget()
        whole = client.queue(queued)
        assert ticks(whole)[0] == 1
        np.testing.assert_array_equal(frames_of(video_of(client, again)), frames_of(video_of(client, whole)))

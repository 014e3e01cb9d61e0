"""Cancel on the real server: within one step, and without a trace in what is run next."""

import numpy as np


def frames_of(client, done, tmp_path, name) -> np.ndarray:
    import av

    path = tmp_path / name
    path.write_bytes(client.download(next(entry for entry in done.files() if entry["filename"].endswith(".mp4"))))
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def test_interrupt_and_run_again(client, workflow, tmp_path):
    wanted = workflow(frames=4, steps=3, seed=11)
    client.forget()
    fresh = client.queue(wanted)
    assert fresh.status == "success", fresh.error

    long = workflow(frames=4, steps=40, seed=12)
    sampler = next(node for node, entry in long.items() if entry["class_type"] == "RealPortraitSampler")

    def second_step(event):
        return event.kind == "progress" and event.data["node"] == sampler and event.data["value"] == 2

    stopped = client.queue(long, interrupt_when=second_step)
    assert stopped.status == "interrupted"
    steps = [event.data["value"] for event in stopped.of("progress") if event.data["node"] == sampler]
    assert steps[-1] <= 3, f"asked to stop after step 2, it went on to step {steps[-1]} of 40"
    assert not stopped.files()

    client.forget()  # so that nothing comes out of the host's cache
    again = client.queue(wanted)
    assert again.status == "success", again.error
    assert again.seconds(sampler) > 0, "this run must have sampled"
    np.testing.assert_array_equal(frames_of(client, again, tmp_path, "again.mp4"), frames_of(client, fresh, tmp_path, "fresh.mp4"))


def test_interrupt_inside_animate_portrait(client, workflow):
    """Within one step of the sampler inside, told at the node of the graph; what was extracted by then is kept."""
    wanted = workflow("animate_portrait_simple", frames=4, seed=13)
    (node,) = [node for node, entry in wanted.items() if entry["class_type"] == "RealPortraitAnimate"]

    def second_step(event):
        return event.kind == "progress" and event.data["node"].endswith("sampler") and event.data["value"] == 2

    client.forget()
    stopped = client.queue(wanted, interrupt_when=second_step)
    assert stopped.status == "interrupted" and not stopped.files()
    assert [event.data["node_id"] for event in stopped.of("execution_interrupted")] == [node]
    assert [event.data["value"] for event in stopped.of("progress")][-1] <= 3, "of 10 steps"
    again = client.queue(wanted)
    ran = {event.data["node"].rpartition(".")[2] for event in again.of("executing") if "." in (event.data.get("node") or "")}
    assert again.status == "success" and ran == {"sampler", "decode", "paste", "video"}

"""Load: prompts from four clients at once, good and bad ones mixed, with cancels, on a server that is killed in between.

Every prompt ends as a result or as an error in a sentence, results depend on what was asked alone, and nothing is left over: no
memory, no half-written file, no process. The kill takes a long video in its second clip: queued again, it goes on from its first
one. Long videos that were cancelled keep their whole clips, and only these. The full size prints the table of docs/faults.md:

    python scripts/test.py --nightly tests/server/test_load.py -s
"""

import hashlib
import json
import random
import shutil
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

CLIENTS = 4
WARM = 20  # prompts after which memory is first measured
GROWTH = 1.05
LONG_FRAMES, LONG_CLIPS = 18, 2  # of the driving video `two_clips`
# Kind of prompt -> how many of 200.
FULL = {
    "quick start": 30,
    "Animate Portrait": 20,
    "saved motion": 16,
    "Face Vid2vid alone": 16,
    "odd sizes": 14,
    "long video": 8,
    "no face in the portrait": 10,
    "no face in the driving video": 8,
    "truncated weights": 10,
    "renamed pickle as weights": 6,
    "truncated driving video": 10,
    "portrait of 12x12 px": 6,
    "name that leads out": 10,
    "lengths that differ": 6,
    "cancelled while it ran": 16,
    "cancelled in the queue": 8,
    "long video cancelled": 6,
}
GOOD = tuple(FULL)[:6]
CANCELLED = tuple(FULL)[-3:]
OUTSIDE = ("../../../../etc/passwd", "/etc/passwd", "..\\..\\out.safetensors", "CON", "small.safetensors\0", "\u202e" * 400)
LONG, LONG_NODE, LONG_STEPS = "animate_long_video", "RealPortraitAnimateLong", 20
SAMPLERS = ("RealPortraitSampler", "KSampler", LONG_NODE)
STAGES = ("RealPortraitExtractKeypoints", "RealPortraitMotionMaps", "RealPortraitSampler", "VAEDecode", "SaveVideo")


@dataclass(frozen=True)
class Job:
    kind: str
    workflow: dict
    stage: str = ""  # cancelled when the sampler has made `step` steps, or this type of node begins
    step: int = 2
    steps: int | None = None  # of all clips of a long video, whose node reports the progress of other work too
    killed: bool = False  # the server is, when `step` steps are made


@dataclass(frozen=True)
class Outcome:
    job: Job
    status: str  # success, error, rejected, interrupted; deleted: taken from the queue before it ran
    seconds: float  # of running, without the time in the queue
    said: str = ""
    frames: str = ""  # a digest of the saved video's frames
    count: int = 0  # of frames
    report: str = ""  # what the nodes show as text
    again: int = 0  # how often it was queued again because the server had gone


@dataclass
class Load:
    """What the clients share."""

    server: object
    outcomes: list[Outcome] = field(default_factory=list)
    up: threading.Event = field(default_factory=threading.Event)
    sampling: threading.Event = field(default_factory=threading.Event)  # the job that is killed
    memory: list[int] = field(default_factory=list)  # bytes, with the models freed


# The prompts


def jobs(make: Callable[..., dict], counts: dict[str, int], seed: int, killed: int) -> list[Job]:
    """In an order of chance, but for the one that is killed. Few settings repeat often, so that equal prompts run early, late and
    after the restart.
    """
    rng = random.Random(seed)
    made = [job(make, kind, rng, number) for kind, count in counts.items() for number in range(count)]
    rng.shuffle(made)
    (victim,) = (one for one in made if one.killed)
    made.remove(victim)
    made.insert(killed, victim)
    return made


def job(make: Callable[..., dict], kind: str, rng: random.Random, number: int) -> Job:
    files = dict(portrait="portrait.png", driving="driving.mp4")
    settings = dict(frames=rng.choice((2, 3)), steps=rng.choice((1, 2)), seed=rng.choice((1, 2)))
    name, change, how = "animate_portrait", {}, {}
    match kind:
        case "Animate Portrait":
            name = "animate_portrait_simple"
        case "saved motion":
            name = "animate_saved_motion"
        case "Face Vid2vid alone":
            name = "animate_liveportrait"
        case "odd sizes":
            files = dict(portrait="odd_rgba.png", driving="odd_size.mp4")
        case "no face in the portrait":
            files["portrait"] = "noise.png"
        case "no face in the driving video":
            files["driving"] = "no_face.mp4"
        case "truncated weights":
            settings["weights"] = "truncated.safetensors"
        case "renamed pickle as weights":
            settings["weights"] = "renamed.safetensors"
        case "truncated driving video":
            files["driving"] = "truncated.mp4"
        case "portrait of 12x12 px":
            files["portrait"] = "tiny.png"
        case "name that leads out":
            name = "animate_saved_motion"
            class_type, widget = (("RealPortraitLoadModel", "weights"), ("RealPortraitSaveMotion", "filename_prefix"))[number % 2]
            change = {class_type: {widget: OUTSIDE[number % 2] if widget == "filename_prefix" else OUTSIDE[number % len(OUTSIDE)]}}
        case "lengths that differ":
            name, change = "animate_portrait_ksampler", {"KSampler": {"latent_image": ["longer", 0]}}
        case "cancelled while it ran":
            settings |= dict(frames=4, steps=40, seed=1000 + number)
            how = dict(stage=STAGES[number % len(STAGES)])
        case "long video" if number:
            name, files["driving"], settings["frames"] = LONG, "two_clips.mp4", None
        case "long video":
            name, files["driving"] = LONG, "two_clips.mp4"
            settings = dict(steps=LONG_STEPS, seed=3000)
            how = dict(killed=True, step=LONG_STEPS + 2, steps=LONG_CLIPS * LONG_STEPS)
        case "long video cancelled":  # in its first clip or in its second
            name, files["driving"] = LONG, "two_clips.mp4"
            settings = dict(steps=LONG_STEPS, seed=2000 + number)
            how = dict(stage=LONG_NODE, step=number % 2 * LONG_STEPS + 2, steps=LONG_CLIPS * LONG_STEPS)
    workflow = make(name, **files, **settings)
    if kind == "saved motion":  # rendered by Face Vid2vid: its file has many frames, whatever is asked
        (sampler,) = (node for node, entry in workflow.items() if entry["class_type"] == "RealPortraitSampler")
        (motion,) = (node for node, entry in workflow.items() if entry["class_type"] == "RealPortraitMotionMaps")
        inputs = {"vid2vid": workflow[motion]["inputs"]["vid2vid"], "motion": [motion, 0], "result": "face crop", "even_size": True}
        workflow[sampler] = {"class_type": "RealPortraitRenderVid2Vid", "inputs": inputs}
        (video,) = (entry for entry in workflow.values() if entry["class_type"] == "CreateVideo")
        video["inputs"]["images"] = [sampler, 0]
    if kind == "lengths that differ":
        latent = next(entry["inputs"]["latent_image"] for entry in workflow.values() if entry["class_type"] == "KSampler")
        workflow["longer"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": latent, "amount": 2}}
    for entry in workflow.values():
        entry["inputs"].update(change.get(entry["class_type"], {}))
    return Job(kind, workflow, **how)


# The clients


def run_all(load: Load, waiting: deque[Job]) -> None:
    """Four clients take the jobs until none is left. SIGKILL for the server while it samples a job that is `killed`."""
    wanted, kill = len(load.outcomes) + len(waiting), any(job.killed for job in waiting)
    failed = []

    def client() -> None:
        try:
            while waiting:
                load.outcomes.append(until_it_ends(load, waiting.popleft()))
        except IndexError:
            pass  # another client took the last one
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    if kill:
        while not load.sampling.wait(0.5) and not failed and any(thread.is_alive() for thread in threads):
            pass
        assert load.sampling.is_set(), "the long video did not come to its second clip"
        kill_and_start_again(load)
    for thread in threads:
        thread.join()
    assert not failed and len(load.outcomes) == wanted


def kill_and_start_again(load: Load) -> None:
    import psutil

    children = psutil.Process(load.server.process.pid).children(recursive=True)
    load.up.clear()
    load.server.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, f"they outlived the server: {alive}"
    load.server.start_again()
    load.up.set()


def until_it_ends(load: Load, job: Job) -> Outcome:
    """One prompt's outcome; it is queued again where the server went away with it."""
    import aiohttp
    from comfy_client import ClientError, ComfyClient

    again = 0
    while True:
        assert load.up.wait(600)
        client = ComfyClient(load.server.url)
        try:
            once = in_the_queue if job.kind == "cancelled in the queue" else followed
            return once(load, client, job, again)
        except (ClientError, aiohttp.ClientError, OSError):
            if load.server.process.poll() is None and load.up.is_set():
                raise  # the server is there, and this is its answer
            again += 1
            time.sleep(0.2)


def followed(load: Load, client, job: Job, again: int) -> Outcome:
    sampler = {node for node, entry in job.workflow.items() if entry["class_type"] in SAMPLERS}

    def sampled(event) -> bool:
        if event.kind != "progress" or event.data["node"] not in sampler or job.steps not in (None, event.data["max"]):
            return False
        return event.data["value"] >= job.step

    def note(event) -> None:
        if job.killed and sampled(event):
            load.sampling.set()

    def now(event) -> bool:
        node = event.data.get("node") if event.kind == "executing" else None
        begins = node in job.workflow and job.workflow[node]["class_type"] == job.stage not in SAMPLERS
        return begins or sampled(event)

    run = client.queue(job.workflow, note, now if job.stage else None)
    started = run.of("execution_start")
    seconds = run.events[-1].time - started[0].time if started else 0.0
    videos = [entry for entry in run.files() if entry["filename"].endswith(".mp4")]
    frames = [decoded(client.download(entry)) for entry in videos] if run.status == "success" else []
    digest = hashlib.sha256(b"".join(picture.tobytes() for picture in frames)).hexdigest() if frames else ""
    report = "\n".join(text for output in run.outputs.values() for text in output.get("text", ()))
    return Outcome(job, run.status, seconds, run.error, digest, sum(map(len, frames)), report, again)


def in_the_queue(load: Load, client, job: Job, again: int) -> Outcome:
    """Queued and at once deleted; where it ran already, interrupted."""
    prompt = json.loads(client.post("/prompt", {"prompt": job.workflow}))["prompt_id"]
    client.post("/queue", {"delete": [prompt]})
    client.post("/interrupt", {"prompt_id": prompt})
    while any(prompt == entry[1] for entries in client.get("/queue").values() for entry in entries):
        time.sleep(0.1)
    history = client.get(f"/history/{prompt}").get(prompt)
    if history is None:
        return Outcome(job, "deleted", 0.0, again=again)
    kinds = [kind for kind, _ in history["status"]["messages"]]
    return Outcome(job, kinds[-1].removeprefix("execution_"), 0.0, again=again)


def decoded(video: bytes | Path) -> np.ndarray:
    """All frames of a file, (F, H, W, 3); no frame, or a broken one, is an error."""
    import io

    import av

    with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


# What is left behind


def freed(load: Load) -> int:
    """Bytes of the idle server, models and results freed; it has no child process."""
    import psutil
    from comfy_client import ComfyClient

    ComfyClient(load.server.url).forget()
    process = psutil.Process(load.server.process.pid)
    assert not process.children(recursive=True), "an idle server has no child process"
    load.memory.append(process.memory_info().rss)
    return load.memory[-1]


def unreadable(folder: Path) -> list[str]:
    """The files below the output folder that do not open and decode whole."""
    from PIL import Image
    from safetensors.numpy import load_file

    wrong = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            match path.suffix:
                case ".mp4":
                    assert len(decoded(path))
                case ".png":
                    Image.open(path).load()
                case ".safetensors":
                    load_file(path)
                case _ if path.name != "_output_images_will_be_put_here":
                    raise ValueError("what is it?")
        except Exception as error:
            wrong.append(f"{path.relative_to(folder)}: {error!r}")
    return wrong


def unfinished(runs: Path) -> int:
    """How many long videos were broken off. The folder of each run holds its state with its whole clips, or with the video."""
    from realportrait_core.long.folder import content_digits
    from realportrait_core.long.state import load_state

    count = 0
    for run in runs.iterdir():
        names = sorted(path.name for path in run.iterdir())
        if names == ["state.safetensors", "video.mp4"]:
            continue
        assert names == ["clips", "state.safetensors"], names
        clips = [f"{number:05d}" for number in range(load_state(run / "state.safetensors").clip)]
        kept = sorted(path.name for path in (run / "clips").iterdir())
        assert kept == [f"{clip}.{kind}" for clip in clips for kind in ("mp4", "safetensors")], "whole clips and nothing else"
        for clip in clips:
            segment, record = run / "clips" / f"{clip}.mp4", run / "clips" / f"{clip}.safetensors"
            assert content_digits(segment) == load_state(record).segment
        count += 1
    return count


def check_long(load: Load) -> None:
    """What was broken off is kept; the one that was killed went on from its first clip, to the frames of a run without a break."""
    from comfy_client import ComfyClient

    runs = load.server.folder / "output" / "realportrait_long"
    assert unfinished(runs) == sum(one.job.kind == "long video cancelled" and one.status == "interrupted" for one in load.outcomes)
    (killed,) = (outcome for outcome in load.outcomes if outcome.job.killed)
    assert killed.again == 1 and "Taken up again at frame 16" in killed.report, (killed.again, killed.report)
    shutil.rmtree(runs)
    client = ComfyClient(load.server.url)
    client.forget()
    whole = followed(load, client, killed.job, 0)
    assert whole.status == "success" and "Taken up" not in whole.report and f"{LONG_FRAMES} frames in {LONG_CLIPS}" in whole.report
    assert killed.frames == whole.frames


def check(outcomes: list[Outcome]) -> None:
    digests = {}
    for outcome in outcomes:
        job, said = outcome.job, outcome.said
        if job.kind in GOOD:
            assert outcome.status == "success", f"{job.kind}: {outcome.status}, {said}"
            if job.kind == "long video":
                assert outcome.count == LONG_FRAMES
            elif job.kind != "saved motion":
                loader = next(entry for entry in job.workflow.values() if entry["class_type"] == "RealPortraitLoadDrivingVideo")
                asked = loader["inputs"]["frames"]
                assert outcome.count == min(asked, 3 if job.kind == "odd sizes" else asked)
            digests.setdefault(json.dumps(job.workflow), set()).add(outcome.frames)
        elif job.kind in CANCELLED:
            assert outcome.status in ("interrupted", "deleted", "success"), f"{job.kind}: {outcome.status}, {said}"
        else:
            assert outcome.status in ("error", "rejected"), f"{job.kind}: {outcome.status}"
            assert len(said) > 30 and said.rstrip()[-1] in ".)" and "Traceback" not in said, f"{job.kind}: {said}"
    assert digests and all(len(found) == 1 for found in digests.values()), "equal prompts gave other frames"


def table(outcomes: list[Outcome]) -> str:
    lines = ["| kind of prompt | prompts | ended as | seconds: mean, longest |", "|---|---|---|---|"]
    for kind in FULL:
        of = [outcome for outcome in outcomes if outcome.job.kind == kind]
        if of:
            ends = ", ".join(f"{status} {count}" for status, count in sorted(Counter(one.status for one in of).items()))
            seconds = [one.seconds for one in of]
            lines.append(f"| {kind} | {len(of)} | {ends} | {sum(seconds) / len(of):.1f}, {max(seconds):.1f} |")
    return "\n".join(lines)


# The runs


@pytest.fixture
def load(host_sources, bad_weights, small_weights, media_folder, two_clips):
    """A server of its own, since it is killed."""
    pytest.importorskip("aiohttp", reason="this Python has not the packages that ComfyUI needs: run python scripts/test.py")
    pytest.importorskip("psutil")
    from environment import Environment
    from headless import HeadlessComfyUI

    models = {f"realportrait/{file.name}": file for file in (*bad_weights.values(), small_weights)}
    with HeadlessComfyUI(Environment(Path(sys.executable), host_sources), models) as server:
        for file in (*media_folder.iterdir(), two_clips):
            shutil.copy(file, server.folder / "input")
        whole = (media_folder / "driving.mp4").read_bytes()
        (server.folder / "input" / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
        running = Load(server)
        running.up.set()
        yield running


@pytest.mark.nightly
def test_mixed_prompts_of_four_clients(load, workflow_of_files):
    counts = dict.fromkeys(FULL, 1) | {"quick start": 4, "truncated weights": 0, "renamed pickle as weights": 0}
    counts |= {"long video cancelled": 2}
    run_all(load, deque(jobs(workflow_of_files, counts, seed=0, killed=4)))
    print(f"\n{table(load.outcomes)}", flush=True)
    check(load.outcomes)
    freed(load)
    assert unreadable(load.server.folder / "output") == []
    check_long(load)


@pytest.mark.nightly
def test_two_hundred_prompts(load, workflow_of_files):
    """Memory at the end is that of the first 20 prompts, and both processes, once they are warm, stay where they are."""
    mixed = jobs(workflow_of_files, FULL, seed=1, killed=98)
    assert len(mixed) == 200
    bounds = (0, WARM, 90, 110, 155, 200)
    for first, last in zip(bounds, bounds[1:]):
        run_all(load, deque(mixed[first:last]))
        print(f"\nafter {len(load.outcomes)} prompts: {freed(load) / 2**20:.0f} MiB", flush=True)
    print(f"\n{table(load.outcomes)}\nqueued again after the kill: {sum(bool(one.again) for one in load.outcomes)}", flush=True)
    check(load.outcomes)
    assert unreadable(load.server.folder / "output") == []
    check_long(load)
    start, before_kill, _, warm_again, end = load.memory
    assert before_kill < GROWTH * start and end < GROWTH * start and end < GROWTH * warm_again, load.memory

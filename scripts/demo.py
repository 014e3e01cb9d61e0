"""python scripts/demo.py: a portrait performs a driving video, in a real ComfyUI, from a fresh clone to an mp4.

Makes .venv/ with ComfyUI in it (once), starts the server with this pack alone, queues workflows/api/animate_portrait.json,
and stops the server.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import environment
from environment import ROOT

WORKFLOW = ROOT / "workflows" / "api" / "animate_portrait.json"
FAILED, SETUP_FAILED = 1, 3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="Exit code: 0 the video is there; 1 the workflow failed; 2 wrong arguments; 3 no environment or no server.",
    )
    parser.add_argument("--portrait", type=existing(), default=ROOT / "assets" / "portrait.png", help="picture of a face")
    parser.add_argument("--driving", type=existing(), default=ROOT / "assets" / "driving.mp4", help="video of a face, sound kept")
    parser.add_argument("--out", type=mp4, default=ROOT / "output" / "realportrait.mp4", help="where the video goes (.mp4)")
    parser.add_argument("--frames", type=positive, help="use only so many frames of the driving video")
    parser.add_argument("--steps", type=positive, help="denoising steps per clip, instead of the workflow's")
    parser.add_argument("--seed", type=int, help="of the noise, instead of the workflow's")
    parser.add_argument("--vae", type=existing(".safetensors"), help="an SD1.5 VAE, instead of the bundled tiny one")
    parser.add_argument("--comfyui", type=existing(), help="a folder with ComfyUI's sources, instead of a pinned release")
    parser.add_argument("--keep-server", action="store_true", help="leave the server running for the browser, until Ctrl+C")
    return parser.parse_args()


def existing(suffix: str = ""):
    def check(text: str) -> Path:
        path = Path(text).expanduser().resolve()
        if not path.exists():
            raise argparse.ArgumentTypeError(f"{path} does not exist")
        if not path.name.endswith(suffix):
            raise argparse.ArgumentTypeError(f"{path.name} is not a {suffix} file")
        return path

    return check


def mp4(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if path.suffix.lower() != ".mp4":
        raise argparse.ArgumentTypeError(f"{path.name} must end with .mp4")
    return path


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


# The workflow

DRIVING = ("RealPortraitLoadDrivingVideo", "RealPortraitStreamDrivingVideo")  # the nodes that choose a driving video


def only(workflow: dict, class_type: str) -> str:
    """The id of the one node of a type."""
    found = [node for node, entry in workflow.items() if entry["class_type"] == class_type]
    if len(found) != 1:
        raise SystemExit(f"{WORKFLOW} has {len(found)} nodes of the type {class_type}; the demo needs exactly one.")
    return found[0]


def limit_frames(workflow: dict, frames: int) -> None:
    """Load so many frames of each driving video."""
    for entry in workflow.values():
        if entry["class_type"] in DRIVING:
            entry["inputs"]["frames"] = frames


def filled_in(args: argparse.Namespace, portrait: str, driving: str) -> dict:
    """The API workflow with the arguments in its widgets. portrait, driving: names in the server's input folder."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))

    def put(class_type: str, name: str, value) -> None:
        if value is not None:
            workflow[only(workflow, class_type)]["inputs"][name] = value

    put("RealPortraitLoadPortrait", "image", portrait)
    put("RealPortraitLoadDrivingVideo", "file", driving)
    put("VAELoader", "vae_name", args.vae and args.vae.name)
    put("RealPortraitSampler", "steps", args.steps)
    put("RealPortraitSampler", "seed", args.seed)
    if args.frames:
        limit_frames(workflow, args.frames)
    return workflow


class Progress:
    """Prints each node as it starts, and how far it is."""

    def __init__(self, workflow: dict):
        self.titles = {node: entry.get("_meta", {}).get("title", entry["class_type"]) for node, entry in workflow.items()}
        self.terminal = sys.stdout.isatty()
        self.quarter = 0

    def __call__(self, event) -> None:
        if event.kind == "executing" and event.data.get("node") in self.titles:
            self.quarter = 0
            print(f"  {self.titles[event.data['node']]}", flush=True)
        elif event.kind == "progress":
            value, total = event.data["value"], max(event.data["max"], 1)
            if self.terminal:
                print(f"\r    {value}/{total} ", end="\n" if value >= total else "", flush=True)
            elif 4 * value // total > self.quarter:
                self.quarter = 4 * value // total
                print(f"    {value}/{total}", flush=True)


# The run


def animate(args: argparse.Namespace, made: environment.Environment) -> int:
    from comfy_client import ComfyClient
    from headless import HeadlessComfyUI, ServerError

    try:
        print("Starting ComfyUI", flush=True)
        models = {f"vae/{args.vae.name}": args.vae} if args.vae else {}
        with HeadlessComfyUI(made, models) as server:
            code = queue(args, server, ComfyClient(server.url))
            if args.keep_server:
                wait_for_interrupt(server.url)
            return code
    except ServerError as error:
        print(error, file=sys.stderr)
        return SETUP_FAILED


def queue(args: argparse.Namespace, server, client) -> int:
    from comfy_client import ClientError

    try:
        workflow = filled_in(args, client.upload(args.portrait), client.upload(args.driving))
        print(f"Running {WORKFLOW.relative_to(ROOT)} on {server.url}", flush=True)
        run = client.queue(workflow, on_event=Progress(workflow))
        videos = [entry for entry in run.files() if entry["filename"].endswith(".mp4")]
        if run.status == "success" and videos:
            write(args.out, client.download(videos[-1]))
            report(args.out, run.seconds(only(workflow, "RealPortraitSampler")))
            return 0
        where = workflow.get(run.error_node, {}).get("_meta", {}).get("title", "the workflow")
        complaint = f"{where}: {run.error}" if run.error else f"the workflow ended ({run.status}) without a video"
    except ClientError as error:
        complaint = str(error)
    print(f"\nThe last lines of ComfyUI's log:\n{server.log_tail()}\n\nNo video was made. {complaint}", file=sys.stderr)
    return FAILED


def write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def report(path: Path, seconds: float) -> None:
    import av

    with av.open(str(path)) as video:
        picture = video.streams.video[0]
        frames = sum(1 for _ in video.decode(picture))
        sound = "with the driving video's sound" if video.streams.audio else "silent"
        size, fps = f"{picture.width}x{picture.height}", f"{float(picture.average_rate):g} fps"
        what = f"{frames} frames, {size}, {fps}, {picture.codec.name}, {sound}"
    clips = clip_count(frames)
    print(f"\n{path}\n{what}\n{clips} clips, {seconds / clips:.1f} s per clip", flush=True)


def clip_count(frames: int) -> int:
    sys.path.append(str(ROOT))
    from realportrait_core.animation.clips import plan

    return len(plan(frames))


def wait_for_interrupt(url: str) -> None:
    print(f"\nThe server keeps running: {url} (Ctrl+C ends it)", flush=True)
    try:
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        print()


def main() -> int:
    args = arguments()
    try:
        made = environment.prepare(args.comfyui)
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return SETUP_FAILED
    if environment.inside():
        return animate(args, made)
    # The same command again, by the Python that has the host's packages.
    command = [str(made.python), *sys.argv]
    if os.name == "posix":
        os.execv(command[0], command)  # one process to stop, not two
    return subprocess.run(command).returncode


if __name__ == "__main__":
    # As Ctrl+C: the server goes with the demo.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

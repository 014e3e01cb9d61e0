"""The pictures of the help pages, web/docs/pictures/: every node as it stands in the graph, and what four of them show.

    python scripts/test.py -k help && .venv/bin/python scripts/help_pictures.py [nodes | results]

nodes: photographs in a real Chromium, which scripts/test.py fetches; $REALPORTRAIT_BROWSER names another folder that has it.
results: from runs of the demo's portrait and driving video on the bundled weights; to be made again when these change.
"""

import argparse
import io
import json
import sys
import tempfile
from pathlib import Path

import environment
from browser import BrowserError, drive
from comfy_client import ComfyClient
from demo import limit_frames
from environment import ROOT
from headless import HeadlessComfyUI
from picture import frames_of, sheet
from thumbnails import WORKFLOWS, only_for

PAGES = ROOT / "web" / "docs"
PICTURES = PAGES / "pictures"
LIMIT = 1800  # s for the browser; half a minute on an idle machine
FRAMES = 16  # of the driving video: one clip
SHOWN = 12  # the driving frame where one is shown
COLOURS = 128  # of a node's picture: a quarter of the bytes; an octree keeps the sockets' colours beside a portrait's
STITCHING = "liveportrait/stitching_retargeting_module.safetensors"  # LivePortrait's, which does not come with the pack
RUN = "realportrait_long/4c1a70e93bd5/state.safetensors"  # of an unfinished long video, in the output folder
WIDTH = 768  # px of a result's picture
BAR = 30  # px of the line of text above a part of it


def fail(text: str) -> None:
    raise SystemExit(text)


def keep(picture, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    picture.save(PICTURES / name, quality=88, optimize=True)
    print(f"{PICTURES / name}: {picture.width}x{picture.height}, {(PICTURES / name).stat().st_size / 1000:.0f} kB", flush=True)


# The nodes


def photograph_nodes(client: ComfyClient) -> None:
    """NODE.png for every help page."""
    from PIL import Image

    nodes = sorted(page.stem for page in PAGES.glob("*.md"))
    with tempfile.TemporaryDirectory() as folder:
        job = {"url": client.url, "nodes": nodes, "folder": folder}
        try:
            drive(ROOT / "scripts" / "help_pictures.mjs", job, Path(folder), LIMIT)
        except BrowserError as error:
            fail(str(error))
        for node in nodes:
            picture = Image.open(Path(folder, f"{node}.png")).convert("RGB")
            keep(picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE), f"{node}.png")


# The results


def shown_by(client: ComfyClient, workflow: dict, **wanted: tuple[str, int]) -> dict[str, list]:
    """Runs what is needed for some outputs of a workflow's nodes, name=(the node's title, output); their pictures by name."""
    from PIL import Image

    titles = {entry["_meta"]["title"]: node for node, entry in workflow.items()}
    for name, (title, output) in wanted.items():
        images = [titles[title], output]
        workflow[name] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": name}}
    run = client.queue({node: workflow[node] for node in only_for(workflow, "SaveImage")})
    if run.status != "success":
        fail(f"{', '.join(wanted)}: the workflow ended ({run.status}). {run.error}")
    return {
        name: [Image.open(io.BytesIO(client.download(entry))).convert("RGB") for entry in run.outputs[name]["images"]]
        for name in wanted
    }


def api_workflow(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))


def show_stages(client: ComfyClient) -> None:
    """What ExtractKeypoints, MotionMaps and Inspect show of the demo's portrait and driving video."""
    workflow = api_workflow("compare_and_evaluate")
    limit_frames(workflow, FRAMES)
    shown = shown_by(
        client,
        workflow,
        found=("Extract Face Motion (Keypoints)", 1),
        maps=("Apply Motion to Portrait (Motion Position Maps)", 1),
        sheets=("Inspect RealPortrait", 0),
    )
    keep(column([("The portrait, and a driving frame", shown["found"][SHOWN])]), "RealPortraitExtractKeypoints_result.jpg")
    chosen = [0, 4, 8, SHOWN]
    driver = frames_of(ROOT / "assets" / "driving.mp4")
    keep(
        column(
            [
                ("Driving frames", sheet([[driver[i] for i in chosen]], WIDTH // len(chosen))),
                (
                    "Their motion position maps, where the sampler sees them",
                    sheet([[shown["maps"][i] for i in chosen]], WIDTH // len(chosen)),
                ),
            ]
        ),
        "RealPortraitMotionMaps_result.jpg",
    )
    keep(shown["sheets"][SHOWN], "RealPortraitInspect_result.jpg")


def show_pasted(client: ComfyClient) -> None:
    """What PasteBack makes of the left one of two faces in a picture."""
    workflow = api_workflow("animate_two_faces")
    limit_frames(workflow, FRAMES)
    pasted = "Left Face into the Picture"
    node = next(node for node, entry in workflow.items() if entry["_meta"]["title"] == pasted)
    workflow["mask"] = {"class_type": "MaskToImage", "inputs": {"mask": [node, 1]}, "_meta": {"title": "Mask"}}
    shown = shown_by(client, workflow, picture=("Picture with Two Faces", 0), images=(pasted, 0), masks=("Mask", 0))
    keep(
        column(
            [
                ("picture", shown["picture"][0]),
                ("mask, for the left face", shown["masks"][0]),
                (f"images, frame {SHOWN}", shown["images"][SHOWN]),
            ]
        ),
        "RealPortraitPasteBack_result.jpg",
    )


def column(parts: list):
    """(text, picture) below one another, each WIDTH px wide, its text above it."""
    from PIL import Image, ImageDraw, ImageFont

    heights = [round(picture.height * WIDTH / picture.width) for _, picture in parts]
    made = Image.new("RGB", (WIDTH, sum(heights) + BAR * len(parts)), "white")
    pen, font, top = ImageDraw.Draw(made), ImageFont.load_default(size=18), 0
    for (text, picture), height in zip(parts, heights):
        pen.text((6, top + 4), text, fill="black", font=font)
        made.paste(picture.resize((WIDTH, height)), (0, top + BAR))
        top += BAR + height
    return made


def main() -> None:
    parts = {"nodes": [photograph_nodes], "results": [show_stages, show_pasted]}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", nargs="?", choices=parts, help="by default both")
    which = parser.parse_args().which

    python = Path(sys.executable)
    host = environment.Environment(python, environment.find_host(python, None))
    with (
        tempfile.NamedTemporaryFile() as named,  # never read: the menu of Load Stitching is empty where nobody put the file
        HeadlessComfyUI(host, {STITCHING: Path(named.name)}) as server,
    ):
        unfinished = server.folder / "output" / RUN  # never read either: it is what the menu of Resume Continuation State offers
        unfinished.parent.mkdir(parents=True)
        unfinished.touch()
        client = ComfyClient(server.url)
        for part in [make for name in parts if which in (name, None) for make in parts[name]]:
            part(client)


if __name__ == "__main__":
    main()

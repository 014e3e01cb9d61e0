"""The thumbnails of the workflows in the browser's list of templates, each made from its own result.

python scripts/demo.py && .venv/bin/python scripts/thumbnails.py [NAME ...]
"""

import argparse
import json
import sys
from pathlib import Path

import environment
from comfy_client import ComfyClient
from environment import ROOT
from headless import HeadlessComfyUI
from picture import frames_of

WORKFLOWS = ROOT / "workflows"
HEIGHT = 256  # px; twice as wide
PAPER = "animate_portrait_paper"  # no weights of the paper's size come with the pack


def only_for(workflow: dict, class_type: str) -> dict:
    """The part of an API workflow that its nodes of one type need."""
    wanted = [node for node, entry in workflow.items() if entry["class_type"] == class_type]
    for node in wanted:  # grows while it is walked
        sources = [value[0] for value in workflow[node]["inputs"].values() if isinstance(value, list)]
        wanted += [source for source in sources if source not in wanted]
    return {node: workflow[node] for node in wanted}


def frames_in(result: Path) -> list:
    """The frames of a video; for a picture the portrait that it was made of, and the picture."""
    from PIL import Image

    if result.suffix == ".mp4":
        return frames_of(result)
    return [Image.open(file).convert("RGB") for file in (ROOT / "assets" / "portrait.png", result)]


def thumbnail(frames: list):
    """As many frames side by side, evenly chosen, as fill a picture about twice as wide as high."""
    from PIL import Image

    width = round(frames[0].width * HEIGHT / frames[0].height)
    columns = max(1, round(2 * HEIGHT / width))
    strip = Image.new("RGB", (columns * width, HEIGHT))
    for column in range(columns):
        chosen = frames[round((column + 1) * (len(frames) - 1) / (columns + 1))]
        strip.paste(chosen.resize((width, HEIGHT)), (column * width, 0))
    return strip


def main() -> None:
    names = [file.stem for file in sorted(WORKFLOWS.glob("*.json")) if file.stem != PAPER]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which workflows; by default all: {', '.join(names)}")
    chosen = parser.parse_args().names or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no workflow of the name {', '.join(sorted(unknown))}")

    python = Path(sys.executable)
    with HeadlessComfyUI(environment.Environment(python, environment.find_host(python, None))) as server:
        client = ComfyClient(server.url)
        for name in chosen:
            workflow = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
            run = client.queue(workflow)
            saved = run.files()
            if run.status != "success" or not saved:
                raise SystemExit(f"{name} ended ({run.status}) without a result. {run.error}")
            thumbnail(frames_in(server.folder / "output" / saved[0]["subfolder"] / saved[0]["filename"])).save(
                WORKFLOWS / f"{name}.jpg", quality=88
            )
            print(WORKFLOWS / f"{name}.jpg", flush=True)


if __name__ == "__main__":
    main()

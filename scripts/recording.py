"""docs/recording.webp: a session in ComfyUI's page, from the search for "live portrait" to a video, photographed step by step.

    python scripts/test.py -k help && .venv/bin/python scripts/recording.py [--folder FOLDER]

A real Chromium, which scripts/test.py fetches, on a real server with the bundled weights and examples; everything is done by
mouse and keyboard. A step that does not do what its caption says ends the command with an error. FOLDER keeps the pictures as
they were taken, 1.png, 2.png and so on.
"""

import argparse
import io
import json
import sys
import tempfile
from pathlib import Path

import environment
from browser import BrowserError, drive, find_browser
from environment import ROOT
from headless import HeadlessComfyUI

SHEET = ROOT / "docs" / "recording.webp"
BYTES = 150_000  # of the sheet, at most
LIMIT = 3600  # s for the browser; two minutes on an idle machine
COLUMNS, WIDTH = 2, 750  # px of a picture on the sheet
BAR, EDGE = 32, 10  # px of the caption above a picture, and around it
POINTER = [(0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12)]  # px, an arrow whose tip is where the mouse was


def session(url: str, folder: Path) -> list[dict]:
    """Photographs a session on a server into a folder: [{file, caption, pointer: [x, y]}]."""
    drive(ROOT / "scripts" / "recording.mjs", {"url": url, "folder": str(folder.resolve())}, folder, LIMIT)
    return json.loads((folder / "steps.json").read_text(encoding="utf-8"))


def contact_sheet(steps: list[dict], folder: Path):
    """The pictures in order, row by row, each below its caption and with the mouse pointer, which a photograph leaves out."""
    from PIL import Image, ImageDraw, ImageFont

    font, cells = ImageFont.load_default(size=19), []
    for number, step in enumerate(steps, 1):
        shot = Image.open(folder / step["file"]).convert("RGB")
        tip = step["pointer"]
        ImageDraw.Draw(shot).polygon([(tip[0] + 1.4 * x, tip[1] + 1.4 * y) for x, y in POINTER], "white", "black")
        shot = shot.resize((WIDTH, round(shot.height * WIDTH / shot.width)), Image.Resampling.LANCZOS)
        cell = Image.new("RGB", (WIDTH, BAR + shot.height), "white")
        ImageDraw.Draw(cell).text((2, 4), f"{number}. {step['caption']}", fill="black", font=font)
        cell.paste(shot, (0, BAR))
        cells.append(cell)
    width, height = WIDTH + EDGE, cells[0].height + EDGE
    made = Image.new("RGB", (EDGE + COLUMNS * width, EDGE + -(-len(cells) // COLUMNS) * height), "white")
    for index, cell in enumerate(cells):
        made.paste(cell, (EDGE + index % COLUMNS * width, EDGE + index // COLUMNS * height))
    return made


def save(sheet, path: Path) -> None:
    """At the best quality that BYTES allow."""
    for quality in range(90, 30, -5):
        sheet.save(encoded := io.BytesIO(), "WEBP", quality=quality, method=6)
        if encoded.tell() <= BYTES:
            path.write_bytes(encoded.getvalue())
            print(f"{path}: {sheet.width}x{sheet.height}, quality {quality}, {encoded.tell() / 1000:.0f} kB")
            return
    raise SystemExit(f"The sheet has more than {BYTES} bytes at any quality: show less.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the single pictures are kept; by default nowhere")
    folder = parser.parse_args().folder
    python = Path(sys.executable)
    try:
        find_browser()  # before the server starts
        with HeadlessComfyUI(environment.Environment(python, environment.find_host(python, None))) as server:
            with tempfile.TemporaryDirectory() as spare:
                folder = folder or Path(spare)
                folder.mkdir(parents=True, exist_ok=True)
                save(contact_sheet(session(server.url, folder), folder), SHEET)
    except BrowserError as error:
        raise SystemExit(str(error))


if __name__ == "__main__":
    main()

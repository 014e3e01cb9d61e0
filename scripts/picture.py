"""The picture of the README: frames of a driving video, and below them the portrait and the same frames of the result.

    python scripts/demo.py && .venv/bin/python scripts/picture.py output/realportrait.mp4 --out docs/demo.jpg
"""

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def frames_of(path: Path) -> list:
    """All frames of a video as pictures."""
    import av

    with av.open(str(path)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def square(picture, side: int):
    """The picture's middle square, side x side px."""
    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return picture.convert("RGB").resize((side, side), box=(left, top, left + edge, top + edge))


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="the mp4 that demo.py wrote")
    parser.add_argument("--portrait", type=Path, default=ROOT / "assets" / "portrait.png")
    parser.add_argument("--driving", type=Path, default=ROOT / "assets" / "driving.mp4")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=6, help="frames shown, spread evenly")
    parser.add_argument("--side", type=int, default=200, help="px of a frame")
    said = parser.parse_args()

    result, driving = frames_of(said.result), frames_of(said.driving)
    count = min(len(result), len(driving))
    shown = [round(i * (count - 1) / max(1, said.columns - 1)) for i in range(said.columns)]
    sheet = Image.new("RGB", (said.side * (said.columns + 1), said.side * 2), "white")
    sheet.paste(square(Image.open(said.portrait), said.side), (0, said.side))
    for column, index in enumerate(shown, 1):
        sheet.paste(square(driving[index], said.side), (column * said.side, 0))
        sheet.paste(square(result[index], said.side), (column * said.side, said.side))
    said.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(said.out, quality=90)


if __name__ == "__main__":
    main()

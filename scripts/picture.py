"""The pictures of the README: frames of a driving video, and below them the portrait and the same frames of the result; or all
of it in motion, side by side.

    python scripts/demo.py && .venv/bin/python scripts/picture.py output/realportrait.mp4 --out demo.jpg
    .venv/bin/python scripts/picture.py output/realportrait.mp4 --out docs/demo.webp --side 256
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


def sheet(rows: list[list], side: int):
    """Rows of pictures as one picture, each made a square of side px; None leaves its place white."""
    from PIL import Image

    made = Image.new("RGB", (side * max(len(row) for row in rows), side * len(rows)), "white")
    for top, row in enumerate(rows):
        for left, picture in enumerate(row):
            if picture:
                made.paste(square(picture, side), (left * side, top * side))
    return made


def evenly_spaced(frames: list, columns: int) -> list:
    """So many of the frames, evenly spaced, the first and the last among them."""
    return [frames[round(i * (len(frames) - 1) / max(1, columns - 1))] for i in range(columns)]


def rate_of(path: Path) -> float:
    """Frames a second of a video."""
    import av

    with av.open(str(path)) as video:
        return float(video.streams.video[0].average_rate)


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="the mp4 that demo.py wrote")
    parser.add_argument("--portrait", type=Path, default=ROOT / "assets" / "portrait.png")
    parser.add_argument("--driving", type=Path, default=ROOT / "assets" / "driving.mp4")
    parser.add_argument("--out", type=Path, required=True, help="a .webp moves: portrait, driving frame, result")
    parser.add_argument("--columns", type=int, default=6, help="frames shown, evenly spaced; a .webp shows all")
    parser.add_argument("--side", type=int, default=200, help="px of a frame")
    options = parser.parse_args()

    portrait, result, driving = Image.open(options.portrait), frames_of(options.result), frames_of(options.driving)
    count = min(len(result), len(driving))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.suffix == ".webp":
        moving = [sheet([[portrait, driver, made]], options.side) for driver, made in zip(driving, result)]
        still = round(1000 / rate_of(options.result))
        moving[0].save(options.out, save_all=True, append_images=moving[1:], duration=still, loop=0, quality=80)
    else:
        rows = [
            [None, *evenly_spaced(driving[:count], options.columns)],
            [portrait, *evenly_spaced(result[:count], options.columns)],
        ]
        sheet(rows, options.side).save(options.out, quality=90)


if __name__ == "__main__":
    main()

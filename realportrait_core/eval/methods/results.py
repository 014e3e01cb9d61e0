"""Other methods' results as rows: a folder of their videos or pictures, named by table and case.

FOLDER/TABLE/NAME.mp4 (.webm, .mov, .mkv), or a folder FOLDER/TABLE/NAME of numbered PNG or JPEG files; without TABLE where names
are unique. Of any size. A picture of the portrait's shape shows the whole portrait; a square one, of a portrait that is not
square, shows the square of it that the evaluation compares. What cannot be used is an InputError, one sentence for the report.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...animation.framing import sample_frame
from ...animation.mapping import PortraitMotion
from ...errors import InputError
from ...face.crop import rescale
from ...video.decoding import decode, upright
from ...video.pictures import read_picture
from ...video.source import VideoFile
from ..cases import LONGEST_SIDE
from .alignment import align

VIDEOS = (".mp4", ".webm", ".mov", ".mkv")
PICTURES = (".png", ".jpg", ".jpeg")
SHAPE = 0.03  # of width / height, by which a method may round it, as to multiples of 16 px
MOST_BESIDE = 8  # pictures in one that are recognised


@dataclass(frozen=True)
class Result:
    """A method's pictures of a case of L frames, frame 0 included."""

    pictures: Tensor  # (n, 3, S, S) in [0, 1]
    numbers: tuple[int, ...]  # the case's frames that they show, ascending: 0, 1, ... L - 1, or fewer
    note: str | None  # a sentence for the reader, where not simply all frames are compared


@dataclass(frozen=True)
class Frame:
    """What is compared of a case: its frames, and the part of its portrait."""

    frames: int
    portrait: tuple[int, int]  # height, width
    of_portrait: Tensor  # (3, 3) float64, portrait px -> px of the frame
    size: int  # px


def method_folders(options: Sequence[str], rows: Sequence[str]) -> dict[str, Path]:
    """Row -> folder of every NAME=DIR. InputError for another form, a name that is there twice or in `rows`, or no folder."""
    found = named_paths("--method", options, rows, "NAME=DIR, as X-Portrait=results/xportrait")
    for name, folder in found.items():
        if not folder.is_dir():
            raise InputError(f"--method {name}: {folder} is no folder.")
    return found


def named_paths(option: str, values: Sequence[str], rows: Sequence[str], form: str) -> dict[str, Path]:
    """Row -> path of every NAME=PATH of an option. InputError for another form, or a name that is there twice or in `rows`."""
    found: dict[str, Path] = {}
    for value in values:
        name, equals, path = (part.strip() for part in value.partition("="))
        if not (name and equals and path):
            raise InputError(f"{option} is {value!r}; it must be {form}.")
        if name.casefold() in {row.casefold() for row in (*rows, *found)}:
            raise InputError(f"{option} {value!r}: there is a row {name} already. Choose another name.")
        found[name] = Path(path)
    return found


def method_rows(
    folders: dict[str, Path], table: str, name: str, motion: PortraitMotion, fps: float | None, size: int
) -> tuple[dict[str, Result], dict[str, str]]:
    """Row -> its result for a case, as method_frames, and row -> why there is none, in a sentence."""
    results, left_out = {}, {}
    for row, folder in folders.items():
        try:
            results[row] = method_frames(row, folder, table, name, motion, fps, size)
        except InputError as error:
            left_out[row] = str(error)
    return results, left_out


def method_frames(row: str, folder: Path, table: str, name: str, motion: PortraitMotion, fps: float | None, size: int) -> Result:
    """The method's result for a case, on a frame of `size` px that shows of the portrait what the case's motion shows.

    fps: of the driving video, None where it is not known. InputError, a sentence that names the row, where there is no result, or
    none that can be compared.
    """
    path = find_result(row, folder, table, name)
    frame = Frame(len(motion.maps), motion.portrait_size, rescale(size / motion.maps.height) @ motion.portrait_to_frame, size)
    try:
        return read_pictures(row, path, frame) if path.is_dir() else read_video(row, path, frame, fps)
    except (InputError, OSError) as error:
        said = str(error)
        raise InputError(said if said.startswith(row) else f"{row}: {said}") from error


def result_files(folder: Path, table: str, name: str) -> list[Path]:
    """The files of a method's result for a case: one video, or pictures; none where it has no result that can be read."""
    try:
        path = find_result("", folder, table, name)
    except InputError:
        return []
    return [file for _, file in numbered(path)] if path.is_dir() else [path]


# Its file


def find_result(row: str, folder: Path, table: str, name: str) -> Path:
    """The video, or the folder of pictures, of a case.

    InputError where there is none, or more than one, or a link that leaves the method's folder.
    """
    for part in (table, name):
        if part in ("", ".", "..") or any(mark in part for mark in "/\\\0"):
            raise InputError(f"{row}: {part!r} cannot name a result's file.")
    try:
        for place in (folder / table, folder):
            found = results_in(place, name)
            if len(found) > 1:
                raise InputError(f"{row} has more than one result of {name}: {', '.join(entry.name for entry in found)}. Keep one.")
            if found:
                return confined(row, folder, found[0])
    except OSError as error:
        raise InputError(f"{row}: {folder} cannot be read ({error}).") from error
    wanted = Path(table, name)
    raise InputError(
        f"{row} has neither {wanted}{VIDEOS[0]} (or {', '.join(VIDEOS[1:])}) nor a folder {wanted} of numbered PNG or JPEG files, "
        f"in {folder}."
    )


def results_in(place: Path, name: str) -> list[Path]:
    if not place.is_dir():
        return []
    videos = [entry for entry in sorted(place.iterdir()) if entry.stem == name and entry.suffix.lower() in VIDEOS]
    folder = place / name
    return videos + [folder] if folder.is_dir() and numbered(folder) else videos


def confined(row: str, folder: Path, path: Path) -> Path:
    """The path itself. InputError where it lies outside the folder, by a link."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{row}: {path.relative_to(folder)} is a link out of {folder}. Copy the file there.")
    return path


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Every picture of a folder with the last number in its name, in that order."""
    found = [(re.findall(r"\d+", path.stem), path) for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    return sorted((int(numbers[-1]), path) for numbers, path in found if numbers)


# Its frames


def read_video(row: str, path: Path, frame: Frame, fps: float | None) -> Result:
    """Decoded twice, for the times and for the common frames, so that a long video takes no memory."""
    source, times = VideoFile(path.name, path), []
    for shown in decode(source):
        if shown.anew:
            raise InputError(f"{row}: {path.name} is damaged at {shown.time:.2f} s, or its picture changes its size there.")
        times.append(shown.time)
    common = align(row, times, frame.frames, fps, len(times))
    wanted, last = set(common.result), common.result[-1]

    def pictures() -> Iterator[Tensor]:
        for i, shown in enumerate(decode(source)):
            if i in wanted:
                yield torch.from_numpy(upright(shown, LONGEST_SIDE))
            if i == last:
                return

    return Result(torch.cat([place(row, picture, frame) for picture in pictures()]), common.case, common.note)


def read_pictures(row: str, folder: Path, frame: Frame) -> Result:
    files = numbered(folder)
    numbers = [number for number, _ in files]
    for number, following in zip(numbers, numbers[1:]):
        if following != number + 1:
            wrong = f"more than one picture of number {number}" if following == number else f"no picture of number {number + 1}"
            raise InputError(f"{row}: {folder.name} has {wrong}; number them one by one, from {numbers[0]} to {numbers[-1]}.")
    common, made, first = align(row, None, frame.frames, None, len(files)), [], None
    for _, path in files[: len(common.result)]:
        source = VideoFile(path.name, confined(row, path.parent, path))
        picture = torch.from_numpy(read_picture(source))
        if first not in (None, picture.shape):
            raise InputError(f"{row}: {path.name} is {size_of(picture.shape)} px, and the ones before it {size_of(first)} px.")
        first = picture.shape
        made.append(place(row, picture, frame))
    return Result(torch.cat(made), common.case, common.note)


# Its place on the evaluation's frame


def place(row: str, picture: Tensor, frame: Frame) -> Tensor:
    """A result's picture (h, w, 3) uint8 on the case's frame: (1, 3, S, S) in [0, 1].

    Of the portrait's size it is sampled as the truth is. InputError for a shape that is neither the portrait's nor a square.
    """
    height, width = picture.shape[:2]
    rows, columns = frame.portrait
    pixels, to_frame = picture[None].movedim(-1, 1).float() / 255, frame.of_portrait  # (1, 3, h, w)
    if (height, width) == (rows // 2 * 2, columns // 2 * 2):  # codecs leave out the last row and column of odd sides
        pixels = F.pad(pixels, (0, columns - width, 0, rows - height), mode="replicate")
    elif of_shape(width / height, columns / rows):
        to_frame = to_frame @ stretched(width, height, columns, rows)
    elif of_shape(width / height, 1):
        to_frame = stretched(width, height, frame.size, frame.size)
    else:
        raise InputError(wrong_shape(row, width, height, columns, rows))
    if pixels.shape[2:] == (frame.size, frame.size) and torch.allclose(to_frame, torch.eye(3, dtype=torch.float64)):
        return pixels
    if pixels.shape[2:] != frame.portrait:  # an enlarged picture would have a dark border
        pixels, margin = F.pad(pixels, (1, 1, 1, 1), mode="replicate"), torch.tensor([[1, 0, -1], [0, 1, -1], [0, 0, 1]])
        to_frame = to_frame @ margin.double()
    return sample_frame(pixels, to_frame, frame.size)


def of_shape(aspect: float, wanted: float) -> bool:
    return abs(math.log(aspect / wanted)) <= SHAPE


def stretched(width: int, height: int, to_width: int, to_height: int) -> Tensor:
    """(3, 3) float64: px of a picture -> px of it resized, both with half-pixel centres."""
    x, y = to_width / width, to_height / height
    return torch.tensor([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]], dtype=torch.float64)


def wrong_shape(row: str, width: int, height: int, columns: int, rows: int) -> str:
    """The sentence for a result of width x height px and a portrait of columns x rows px."""
    shapes = [(n, shape) for n in range(2, MOST_BESIDE + 1) for one in (columns / rows, 1.0) for shape in (n * one, one / n)]
    several = next((n for n, shape in shapes if of_shape(width / height, shape)), None)
    looks = f", as {several} pictures beside or above each other would be" if several else ""
    square = "" if of_shape(columns / rows, 1) else ", or its square (square.png of `eval inputs`)"
    return (
        f"{row}: its picture is {width}x{height} px{looks}; the portrait is {columns}x{rows} px. Give the animation alone, in any "
        f"size: the whole portrait{square}."
    )


def size_of(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"

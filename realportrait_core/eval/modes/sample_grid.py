"""A grid of sample frames of a run as PNG."""

from pathlib import Path

import torch

from ...errors import InputError
from ...whole_file import write_whole
from ..rows import FACE_VID2VID, REALPORTRAIT
from .protocol import SHOWN, Outcome


def write_sample_grid(path: Path, outcomes: list[Outcome]) -> None:
    """A PNG: a row for each clip with the portrait, then SHOWN frames as truth, Face Vid2vid, RealPortrait."""
    import cv2

    columns = [name for name in ("truth", FACE_VID2VID, REALPORTRAIT) if name in outcomes[0].pictures]
    lines = []
    for outcome in outcomes:
        groups = [outcome.pictures[name][k] for k in range(SHOWN) for name in columns]
        lines.append(torch.cat([outcome.pictures["portrait"][0], *groups], 1))  # (S, W, 3)
    sheet = torch.cat(lines).numpy()
    size = lines[0].shape[0]
    head = torch.full((size // 10, sheet.shape[1], 3), 255, dtype=torch.uint8).numpy()
    for i, name in enumerate(["portrait", *columns * SHOWN]):
        corner = (i * size + 4, len(head) - 7)
        cv2.putText(head, name, corner, cv2.FONT_HERSHEY_SIMPLEX, size / 512, (0, 0, 0), 1, cv2.LINE_AA)
    picture = cv2.vconcat([head, sheet])[..., ::-1]
    written, data = cv2.imencode(".png", picture)
    if not written:
        raise InputError(f"The sample grid of {picture.shape[1]}x{picture.shape[0]} px could not be encoded.")
    write_whole(path, data.tobytes())

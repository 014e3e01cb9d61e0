"""The picture that the browser shows on a node after a run."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def on_the_node(result) -> torch.Tensor:
    """The one picture (H, W, 3) that the browser shows on a node, from the host's temp folder."""
    import folder_paths

    (image,) = result.ui.as_dict()["images"]
    assert image["type"] == "temp"
    with Image.open(Path(folder_paths.get_temp_directory(), image["subfolder"], image["filename"])) as shown:
        return torch.from_numpy(np.array(shown)).float() / 255


def cells(shown: torch.Tensor, rows: int, columns: int, gap: int = 4) -> list[torch.Tensor]:
    """The pictures of a sheet in reading order."""
    height, width = ((size + gap) // count for size, count in zip(shown.shape, (rows, columns)))
    return [
        shown[row * height : (row + 1) * height - gap, column * width : (column + 1) * width - gap]
        for row in range(rows)
        for column in range(columns)
    ]

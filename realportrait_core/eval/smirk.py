"""SMIRK's expression and pose parameters, read from a folder that the user made with SMIRK (Retsinas et al. 2024)."""

from dataclasses import dataclass
from pathlib import Path

from .estimators import FaceParameters

DRIVING = "driving"  # the folder of the driving videos, beside one for each row


@dataclass(frozen=True)
class SmirkFolder:
    """FOLDER/ROW/CASE.npz for the rows, FOLDER/driving/CASE.npz for the driving videos."""

    path: Path

    def parameters(self, row: str, case: str, frames: int) -> tuple[FaceParameters, str | None]:
        """Of `frames` frames, and a note where the file holds another number. InputError where it is missing or damaged."""
        raise NotImplementedError

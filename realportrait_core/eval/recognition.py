"""Identity similarity: the cosine of a face's embedding and the portrait's, by a recognition network of the user's choice."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from .record import Values

Kind = Literal["face-api", "ArcFace", "SFace"]


@dataclass(frozen=True)
class Recognition:
    """A face recognition network."""

    kind: Kind
    embed: Callable[[Tensor, Tensor], Tensor]  # pictures (L, 3, H, W) in [0, 1], five points (L, 5, 2) px -> (L, D)


def load_recognition(path: str | Path, kind: Kind | None = None) -> Recognition:
    """npm's face-api folder, or ArcFace or SFace as .onnx; kind: by default as the file's outputs tell."""
    raise NotImplementedError


def identity_similarity(embeddings: Tensor, portrait: Tensor, found: Tensor | None = None) -> Values:
    """Cosine of embeddings (L, D) with the portrait's (1, D); None where no face was found (L,) bool, or a norm is 0."""
    raise NotImplementedError

"""Identity similarity: the cosine of a face's embedding and the portrait's, by a recognition network of the user's choice.

face-api npm's `@vladmandic/face-api`, 128-d (`identity.py`); offline.
ArcFace  Deng et al. 2019, as in the paper: 512-d, for instance w600k_r50.onnx or glintr100.onnx of InsightFace's model packs,
         whose weights are for non-commercial research.
SFace    Zhong et al. 2021: 128-d, face_recognition_sface_2021dec.onnx of OpenCV's model zoo (Apache-2.0).

The .onnx files run in OpenCV, on faces of 112 px aligned by five points to ArcFace's template. Cosines of different networks
cannot be compared: a table names its network. Never part of a loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import WeightsError
from ...face.onnx_file import fields
from ...opencv import import_cv2
from ..values import Values, where
from .identity import Template, aligned_faces, alignment, load_embedding

Kind = Literal["face-api", "ArcFace", "SFace"]
WIDTHS: dict[int, Kind] = {512: "ArcFace", 128: "SFace"}  # of the embedding: whose it is
SIDE = 112  # px of the aligned face
# ArcFace's template, px: image-left eye, image-right eye, nose, left and right mouth corner.
TEMPLATE: Template = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
GRAPH, NODE, OP_TYPE = 7, 1, 4  # field numbers of ONNX's ModelProto, GraphProto, NodeProto
FIRST = 8  # nodes among which an ArcFace network that scales its own input has a subtraction and a multiplication


@dataclass(frozen=True)
class Recognition:
    """A face recognition network."""

    kind: Kind
    embed: Callable[[Tensor, Tensor], Tensor]  # pictures (L, 3, H, W) in [0, 1], five points (L, 5, 2) px -> (L, D)


@dataclass(frozen=True)
class OnnxEmbedding:
    """A network of aligned faces, run by OpenCV."""

    network: Any  # cv2.dnn.Net
    scaled: bool  # whether it receives (x - 127.5) / 127.5 in place of x in 0 .. 255

    def embed(self, pictures: Tensor, five: Tensor) -> Tensor:
        """Embeddings (L, D) of the faces of pictures (L, 3, H, W) in [0, 1] with five points each (L, 5, 2) px."""
        faces = 255 * aligned_faces(pictures, alignment(five, TEMPLATE, tuple(range(5))), SIDE)  # RGB
        return self.embed_aligned((faces - 127.5) / 127.5 if self.scaled else faces)

    def embed_aligned(self, faces: Tensor) -> Tensor:
        """Of aligned faces (L, 3, 112, 112) as the network receives them."""
        found = []
        for face in faces.split(1):  # some files allow no other batch
            self.network.setInput(face.float().contiguous().cpu().numpy())
            found.append(torch.from_numpy(self.network.forward().copy()).reshape(1, -1))
        return torch.cat(found)


def load_recognition(path: str | Path, kind: Kind | None = None) -> Recognition:
    """From the folder of npm's face-api, or from an .onnx file; `kind` says whose it is where its 512 or 128 outputs do not.

    WeightsError where it is missing or none of them.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        return Recognition("face-api", load_embedding(path).embed)
    network, data = read_network(path)
    try:
        width = OnnxEmbedding(network, False).embed_aligned(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
    except import_cv2().error as error:
        raise WeightsError(f"{path} does not receive faces (1, 3, {SIDE}, {SIDE}): {error.err or error}.") from error
    kind = kind or WIDTHS.get(width)
    if kind is None:
        known = " or ".join(f"{width} ({name})" for width, name in WIDTHS.items())
        raise WeightsError(f"{path} has {width} outputs; a face recognition network has {known}.")
    return Recognition(kind, OnnxEmbedding(network, kind == "ArcFace" and not scales_itself(data)).embed)


def read_network(path: Path) -> tuple[Any, bytes]:
    """The network and the file. WeightsError where it is missing or OpenCV cannot run it."""
    cv2 = import_cv2()

    if not path.is_file():
        raise WeightsError(
            f"{path} is missing: name ArcFace or SFace as .onnx, or the folder `model` of npm's @vladmandic/face-api."
        )
    data = path.read_bytes()
    try:
        return cv2.dnn.readNetFromONNX(torch.frombuffer(bytearray(data), dtype=torch.uint8).numpy()), data
    except (cv2.error, ValueError) as error:
        raise WeightsError(f"OpenCV {cv2.__version__} cannot run {path} ({getattr(error, 'err', None) or error}).") from error


def scales_itself(data: bytes) -> bool:
    """Whether the first nodes of an ONNX model subtract and multiply: ArcFace networks that came from MXNet receive 0 .. 255."""
    nodes = [node for graph in fields(memoryview(data), GRAPH) for node in fields(graph, NODE)]
    first = {bytes(next(fields(node, OP_TYPE))).decode() for node in nodes[:FIRST]}
    return {"Sub", "Mul"} <= first


def identity_similarity(embeddings: Tensor, portrait: Tensor, found: Tensor | None = None) -> Values:
    """Cosine of embeddings (L, D) with the portrait's (1, D); None where no face was found (L,) bool, or where a norm is 0."""
    lengths = torch.linalg.vector_norm(embeddings.double(), dim=1) * torch.linalg.vector_norm(portrait.double())  # (L,)
    cosine = (embeddings.double() * portrait.double()).sum(1) / lengths
    known = torch.isfinite(cosine) & (lengths > 0)
    if found is not None:
        known &= found
    return where(cosine.clamp(-1, 1), known)

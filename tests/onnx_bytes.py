"""Tiny ONNX models for tests, as protobuf's wire format: the package `onnx` is not needed."""

from collections.abc import Iterable

import numpy as np

FLOAT = 1  # an element type


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(field(1, size) for size in values.shape)
    return dims + field(2, FLOAT) + field(8, name) + field(9, values.astype("<f4").tobytes())


def value(name: str, shape: Iterable[int]) -> bytes:
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, dims)))


def node(kind: str, inputs: Iterable[str], output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, output) + field(4, kind)


def colour_embedding(outputs: int, side: int = 112, scales: bool = False) -> bytes:
    """Faces (1, 3, side, side) -> (1, outputs): the means of red, green and blue, then ones; scales: (x - 127.5) / 127.5 first."""
    weight, bias = np.zeros((3, outputs)), np.ones(outputs)
    weight[:, :3], bias[:3] = np.eye(3), 0
    constants = {"half": np.full((1, 1, 1, 1), 127.5), "inverse": np.full((1, 1, 1, 1), 1 / 127.5), "weight": weight, "bias": bias}
    nodes = [node("GlobalAveragePool", ["scaled" if scales else "face"], "mean"), node("Flatten", ["mean"], "flat")]
    nodes.append(node("Gemm", ["flat", "weight", "bias"], "embedding"))
    if scales:
        nodes = [node("Sub", ["face", "half"], "shifted"), node("Mul", ["shifted", "inverse"], "scaled"), *nodes]
    else:
        constants = {name: constants[name] for name in ("weight", "bias")}
    graph = b"".join(field(1, entry) for entry in nodes) + field(2, "toy")
    graph += b"".join(field(5, tensor(name, values)) for name, values in constants.items())
    graph += field(11, value("face", (1, 3, side, side))) + field(12, value("embedding", (1, outputs)))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))

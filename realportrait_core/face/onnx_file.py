"""The float tensors of an ONNX file, read from protobuf's wire format; the graph itself is not run.

For files whose checksum was compared before: lengths are checked, what the format allows besides is not.
"""

import math
from collections.abc import Iterator

import torch

from ..errors import WeightsError

GRAPH, INITIALIZER = 7, 5  # field numbers: of ModelProto, of GraphProto
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # of TensorProto
FLOAT = 1  # a data_type
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


def initializers(data: bytes) -> dict[str, torch.Tensor]:
    """The float32 tensors (initializers) of an ONNX model, in the file's order. Raises WeightsError where it is cut short."""
    tensors = {}
    for graph in fields(memoryview(data), GRAPH):
        for entry in fields(graph, INITIALIZER):
            if next(fields(entry, DATA_TYPE)) != FLOAT:
                continue
            name, raw = bytes(next(fields(entry, NAME))).decode(), next(fields(entry, RAW_DATA))
            shape = list(fields(entry, DIMS))
            if len(raw) != 4 * math.prod(shape):
                raise WeightsError(f"The ONNX tensor {name} of shape {shape} has {len(raw)} bytes.")
            if len(raw):  # an empty one says "not given"
                tensors[name] = torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(shape)
    return tensors


def fields(message: memoryview, wanted: int) -> Iterator:
    """The values of one field of a protobuf message: int, or memoryview of bytes, text or a message inside."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, end = varint(message, at)
        elif wire in (FIXED64, FIXED32, BYTES):
            length, at = varint(message, at) if wire == BYTES else ({FIXED64: 8, FIXED32: 4}[wire], at)
            value, end = message[at : at + length], at + length
        else:
            raise WeightsError(f"Byte {at} of an ONNX message has the unknown wire type {wire}.")
        if end > len(message):
            raise WeightsError(f"An ONNX message of {len(message)} bytes is cut short: a field ends at {end}.")
        at = end
        if number == wanted:
            yield value


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 64, 7):
        if at == len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise WeightsError(f"A number in an ONNX message of {len(message)} bytes has no end at byte {at}.")

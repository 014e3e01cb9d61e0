"""The float tensors of an ONNX file, read from protobuf's wire format; the graph itself is not run.

Lengths, types and shapes are checked before a tensor is made; the tensors of a file take no more memory than the file.
"""

import math
from collections.abc import Iterator

import torch

from ..errors import WeightsError

GRAPH, INITIALIZER = 7, 5  # field numbers: of ModelProto, of GraphProto
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # of TensorProto
FLOAT = 1  # a data_type
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
MOST_DIMENSIONS = 16


def initializers(data: bytes) -> dict[str, torch.Tensor]:
    """The float32 tensors (initializers) of an ONNX model, in the file's order. Raises WeightsError where it is damaged."""
    tensors = {}
    for graph in fields(memoryview(data), GRAPH):
        for entry in fields(message(graph), INITIALIZER):
            entry = message(entry)
            if only(entry, DATA_TYPE) != FLOAT:
                continue
            name, raw = text(only(entry, NAME)), message(only(entry, RAW_DATA))
            shape = list(fields(entry, DIMS))
            if len(shape) > MOST_DIMENSIONS or not all(isinstance(size, int) for size in shape):
                raise WeightsError(f"The ONNX tensor {name:.200} has {len(shape)} dimensions, or sizes that are no whole numbers.")
            if len(raw) != 4 * math.prod(shape):
                raise WeightsError(f"The ONNX tensor {name:.200} of shape {shape} has {len(raw)} bytes.")
            if len(raw):  # an empty one says "not given"
                tensors[name] = torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(shape)
    return tensors


def only(entry: memoryview, wanted: int) -> int | memoryview:
    """The first value of a field that must be there."""
    for value in fields(entry, wanted):
        return value
    raise WeightsError(f"A tensor of an ONNX file lacks its field {wanted}.")


def message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise WeightsError(f"An ONNX file has the number {value} where bytes belong.")
    return value


def text(value: int | memoryview) -> str:
    try:
        return bytes(message(value)).decode()
    except UnicodeDecodeError as error:
        raise WeightsError(f"A name in an ONNX file is no text ({error.reason}).") from error


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

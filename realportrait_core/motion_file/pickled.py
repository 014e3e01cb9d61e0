"""Reads a pickle of plain containers and numpy arrays without unpickling it.

A pickle is a program for a small stack machine. pickletools lists its instructions without running them; this module
implements those that build dicts, lists, tuples, numbers, text, bytes and arrays. Any other instruction, and any other name
of a function or class, raises InputError.
"""

import pickletools

import numpy as np

from ..errors import InputError

LARGEST = 64 * 2**20  # bytes
MOST_STEPS = 4 * 2**20  # instructions, each of which may make an object of some 64 bytes; LivePortrait's templates have 100 a frame
ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
RECONSTRUCT = {(module, "_reconstruct") for module in ARRAY_MODULES}
SCALAR = {(module, "scalar") for module in ARRAY_MODULES}
FROM_BUFFER = {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}
NDARRAY, DTYPE, ENCODE = ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")
KNOWN_NAMES = RECONSTRUCT | SCALAR | FROM_BUFFER | {NDARRAY, DTYPE, ENCODE}
NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}

VALUES = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
STORES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
RECALLS = {"GET", "BINGET", "LONG_BINGET"}


class Name:
    """The name of a function or class in the pickle. It is never imported."""

    def __init__(self, module: str, name: str):
        if (module, name) not in KNOWN_NAMES:
            raise InputError(
                f"It names {module}.{name}, which is no array and no plain data. Such a file could run code when it is "
                "unpickled; it is not opened."
            )
        self.path = (module, name)


class Dtype:
    """numpy.dtype(code); a later instruction sets the byte order."""

    def __init__(self, code: str):
        if code not in NUMBERS:
            raise InputError("It holds an array of something else than numbers.")
        self.code, self.order = code, "="

    def build(self, state: tuple) -> None:
        if len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise InputError("It holds an array of something else than numbers.")
        self.order = state[1]

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class Array:
    """An array; a later instruction sets its shape and bytes."""

    def __init__(self):
        self.value: np.ndarray | None = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, Dtype) or not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple):
            raise InputError("It holds an array of something else than numbers.")
        self.value = np.frombuffer(data, dtype.numpy()).reshape(shape, order="F" if fortran else "C")  # not a copy


def call(name, arguments, room: int):
    """The results of the few known functions for these arguments; none of them is called. room: bytes that a text may become."""
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise InputError("It calls something that is not the name of a function.")
    if name.path in RECONSTRUCT:
        if not (arguments and isinstance(arguments[0], Name) and arguments[0].path == NDARRAY):
            raise InputError("It holds an array of a class of its own.")
        return Array()
    if name.path == DTYPE:
        return Dtype(arguments[0])
    if name.path in SCALAR:
        dtype, data = arguments
        array = Array()
        array.build((1, (), dtype, False, data))
        return array.value[()]
    if name.path in FROM_BUFFER:
        data, dtype, shape, order = arguments
        array = Array()
        array.build((1, shape, dtype, order == "F", data))
        return array
    if name.path == ENCODE and len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        if len(arguments[0]) > room:
            raise InputError(f"It makes more than {LARGEST} bytes of its texts.")
        return arguments[0].encode("latin1")  # how bytes are written for Python 2
    raise InputError(f"It calls {'.'.join(name.path)} in a way that no array needs.")


class Machine:
    """The stack machine of one pickle."""

    def __init__(self):
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict = {}
        self.room = LARGEST  # bytes that texts may still become: one text may be named again and again

    def since_mark(self) -> list:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def take(self, count: int) -> list:
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise InputError("It takes more off its stack than it has put there.")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def fill(self, pairs: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2 or not all(isinstance(key, (str, int)) for key in pairs[::2]):
            raise InputError("It holds a dict with keys that are neither text nor numbers.")
        target.update(zip(pairs[::2], pairs[1::2]))

    def extend(self, items: list) -> None:
        if not isinstance(self.stack[-1], list):
            raise InputError("It appends to something that is no list.")
        self.stack[-1].extend(items)

    def step(self, opcode: str, argument) -> None:
        """One instruction other than STOP."""
        push = self.stack.append
        if opcode in VALUES:
            push(argument)
        elif opcode in CONSTANTS:
            push(CONSTANTS[opcode])
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode in STORES:
            self.memo[int(argument)] = self.stack[-1]
        elif opcode in RECALLS:
            push(self.memo[int(argument)])
        elif opcode == "MARK":
            self.marks.append(len(self.stack))
        elif opcode == "EMPTY_DICT":
            push({})
        elif opcode == "EMPTY_LIST":
            push([])
        elif opcode in ("DICT", "LIST", "TUPLE"):
            items = self.since_mark()
            push({} if opcode == "DICT" else items if opcode == "LIST" else tuple(items))
            if opcode == "DICT":
                self.fill(items)
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            push(tuple(self.take(int(opcode[-1]))))
        elif opcode in ("SETITEM", "SETITEMS"):
            self.fill(self.take(2) if opcode == "SETITEM" else self.since_mark())
        elif opcode in ("APPEND", "APPENDS"):
            self.extend(self.take(1) if opcode == "APPEND" else self.since_mark())
        elif opcode == "GLOBAL":
            push(Name(*argument.split(" ", 1)))
        elif opcode == "STACK_GLOBAL":
            module, name = self.take(2)
            if not isinstance(module, str) or not isinstance(name, str):
                raise InputError("It names a function by something else than text.")
            push(Name(module, name))
        elif opcode == "REDUCE":
            name, arguments = self.take(2)
            made = call(name, arguments, self.room)
            self.room -= len(made) if isinstance(made, bytes) else 0
            push(made)
        elif opcode == "BUILD":
            (state,) = self.take(1)
            if not isinstance(self.stack[-1], (Array, Dtype)) or not isinstance(state, tuple):
                raise InputError("It sets the inside of something that is no array.")
            self.stack[-1].build(state)
        elif opcode not in ("PROTO", "FRAME"):
            raise InputError(f"It uses the instruction {opcode}, which no array and no plain data needs. It is not opened.")


def read_pickle(data: bytes):
    """The pickle's content: dicts, lists, tuples, numbers, text, bytes, and `Array`s. Nothing in it is run.

    Raises InputError where it holds anything else, with the name, or is damaged.
    """
    if len(data) > LARGEST:
        raise InputError(f"It has {len(data)} bytes; at most {LARGEST} are read.")
    machine, at = Machine(), 0
    try:
        for step, (opcode, argument, at) in enumerate(pickletools.genops(data)):
            if opcode.name == "STOP":
                break
            if step == MOST_STEPS:
                raise InputError(f"It has more than {MOST_STEPS} instructions.")
            machine.step(opcode.name, argument)
        (result,) = machine.take(1)
        return result
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, MemoryError) as error:
        raise InputError(f"It is damaged near byte {at}, or no pickle ({type(error).__name__}).") from error

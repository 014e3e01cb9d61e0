"""Running out of memory: the same work in smaller pieces."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from .errors import InsufficientMemory

T = TypeVar("T")
log = logging.getLogger(__name__)

# How allocators say it that raise a plain RuntimeError: PyTorch's on a CPU (Linux, Windows) and for Metal, HIP, CUDA's runtime and
# libraries, DirectML, C++ itself.
TEXTS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "could not allocate tensor",
    "alloc_failed",
    "bad_alloc",
)
FRAMES = ("frame at once", "frames at once")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, of any device, raised this."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TEXTS)


def halves(most: int) -> tuple[int, ...]:
    """8 -> (8, 4, 2, 1)."""
    return (most, *halves(most // 2)) if most > 1 else (1,)


class Ladder:
    """Sizes in which one kind of work may be done, from the one that needs most memory down.

    A run makes one for each kind of its work: where memory ran out once, the rest of the run begins with the size that fitted.
    unit: of the sizes, in words, for one and for several. last_resort: called once, before the last size is tried a second time,
    to free what others hold; it returns what it did.
    """

    def __init__(
        self, what: str, sizes: Sequence[int], unit: tuple[str, str] = FRAMES, last_resort: Callable[[], str] | None = None
    ):
        self.what, self.sizes, self.unit = what, tuple(sizes), unit  # "Decoding", (8, 4, 2, 1)
        self.last_resort = last_resort

    def run(self, work: Callable[[int], T]) -> T:
        """work(size), called again with the next size where memory runs out.

        Raises InsufficientMemory where it runs out with the last size; other errors pass.
        """
        while True:
            size = self.sizes[0]
            try:
                return work(size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                said = first_line(error)
            tried = f"{size} {self.unit[size > 1]}"
            gc.collect()  # here, because the error's traceback held the tensors of the attempt until now
            if len(self.sizes) > 1:
                self.sizes = self.sizes[1:]
                log.warning("%s: out of memory with %s, going on with %d.", self.what, tried, self.sizes[0])
            elif self.last_resort is not None:
                last_resort, self.last_resort = self.last_resort, None
                log.warning("%s: out of memory with %s. %s", self.what, tried, last_resort())
            else:
                raise InsufficientMemory(
                    f"{self.what}: out of memory even with {tried} ({said}). Close other programs that use the memory, "
                    "or choose a smaller picture, fewer frames or a smaller weight_dtype."
                )


def pieces(total: int, ladder: Ladder, work: Callable[[slice], T]) -> Iterator[tuple[T, int]]:
    """work(slice) over `total` items in order, as many at once as fit. Yields each result and the number of items done by then.

    No item is left alone for the last piece: kernels for a batch of one round otherwise than those for several, so that a frame's
    bits would depend on how long the video is.
    """
    done = 0

    def piece(size: int) -> tuple[T, int]:
        stop = piece_end(done, size, total)
        return work(slice(done, stop)), stop

    while done < total:
        result, done = ladder.run(piece)
        yield result, done


def piece_end(start: int, size: int, total: int) -> int:
    """Where the piece ends that begins with item `start`, for pieces of `size`."""
    stop = min(start + size, total)
    return stop - 1 if total - stop == 1 and stop - start > 2 else stop


def first_line(error: BaseException) -> str:
    """What an allocator says, without the stack and the advice that some append."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

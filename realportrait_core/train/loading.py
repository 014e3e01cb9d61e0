"""The batches of the steps, loaded one step ahead; damaged samples are replaced and counted."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from ..errors import InputError, RealPortraitError
from .batch import Batch, Index, Item, complete, draw, draw_item, load_item
from .encoders import Encoders, Row
from .stages import Shape, Stage

log = logging.getLogger(__name__)

LOADERS = 4  # threads that load samples ahead of the step


def batches(
    index: Index, stage: Stage, seed: int, first: int, timesteps: int, rank: int, size: int, encoders: Encoders | None = None
) -> Iterator[Batch]:
    """The share of process `rank` of `size` in the steps from `first` on, loaded one step ahead; `encoders` as in `load`.

    Damaged samples are replaced by `load_whole`.
    """
    damaged: set[int] = set()
    with ThreadPoolExecutor(LOADERS) as pool:

        def begin(step: int):
            items, shape = draw(index, stage, seed, step, timesteps)[rank::size], stage.shapes[step % len(stage.shapes)]
            return [pool.submit(load_whole, index, shape, item, damaged) for item in items]

        step, reading = first, begin(first)
        while True:
            ahead = begin(step + 1)
            yield complete([row.result() for row in reading], index.size, encoders)
            step, reading = step + 1, ahead


def load_whole(index: Index, shape: Shape, item: Item, damaged: set[int]) -> Row:
    """load_item; the place of a sample whose data are damaged is taken by the next one that can give such clips.

    `damaged` collects their numbers, for one warning each; which sample takes the place depends on nothing else, so a resumed run
    draws the same. Raises InputError where no sample is whole.
    """
    usable: list[int] = []
    tried = 0
    while True:
        try:
            return load_item(index, item)
        except RealPortraitError as error:
            usable, tried = usable or index.usable(shape).tolist(), tried + 1
            if item.sample not in damaged:
                damaged.add(item.sample)
                log.warning("%d of %d training samples are damaged; another takes its place: %s", len(damaged), len(usable), error)
            if tried == len(usable):
                raise InputError(
                    f"None of the {tried} training samples that can give such clips is whole. Make them anew. The last one: {error}"
                ) from error
        following = usable[(usable.index(item.sample) + 1) % len(usable)]
        drawn = draw_item(index, shape, following, item.t, torch.Generator().manual_seed(item.seed))
        item = replace(drawn, unmoved=item.unmoved)

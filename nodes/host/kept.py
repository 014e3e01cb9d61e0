"""What nodes keep from one run to the next, as long as the host keeps the weights that it was made by."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The latest `most` values of each owner, by key. They go with the owner, to which no value may refer."""

    def __init__(self, most: int):
        self.most = most
        self.of: WeakKeyDictionary = WeakKeyDictionary()  # owner -> {key: value}, the latest last

    def get(self, owner, key: Hashable, make: Callable[[], Value], fits: Callable[[Value], bool] = lambda value: True) -> Value:
        """The owner's value of a key, made where there is none that fits."""
        values = self.of.setdefault(owner, OrderedDict())
        value = values.pop(key, None)
        if value is None or not fits(value):
            value = make()
        values[key] = value
        while len(values) > self.most:
            values.popitem(last=False)
        return value

    def values(self) -> Iterator[Value]:
        """All values, of all owners that there still are."""
        return (value for values in list(self.of.values()) for value in values.values())

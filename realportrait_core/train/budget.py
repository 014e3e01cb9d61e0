"""How long a training runs: so many steps, or so many minutes."""

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Budget:
    """Either steps or minutes of the training's own running time. InputError for both, neither, or one that is not above 0."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self):
        given = [value for value in (self.steps, self.minutes) if value is not None]
        if len(given) != 1 or given[0] <= 0:
            raise InputError(f"A budget is so many steps or so many minutes, above 0; this is {self}.")

    def spent(self, step: int, seconds: float) -> float:
        """The share of the budget that is used up after so many steps and seconds: 0 at the start, 1 at the end."""
        return step / self.steps if self.steps is not None else seconds / 60 / self.minutes

"""Typed errors. Each message is a sentence that says what is wrong, with the numbers, and what to do next."""


class RealPortraitError(ValueError):
    """Base of every error that a user of the pack can mend."""


class FaceError(RealPortraitError):
    """No usable face, or an ambiguous one, in the portrait or in the driving video."""


class WeightsError(RealPortraitError):
    """A weight file is missing, damaged, or not what its slot needs."""


class InputError(RealPortraitError):
    """An image, video, latent or motion has a shape, length or value that cannot be used."""


class InsufficientMemory(RealPortraitError):
    """Memory ran out even in the smallest pieces."""


class NonFiniteError(RealPortraitError):
    """Sampling met NaN or infinity. step: the number of the step, from 1; where: it and the frames, in words."""

    def __init__(self, message: str, step: int, where: str):
        super().__init__(message)
        self.step, self.where = step, where

"""Colours as linear light, (3,) in 0..1."""

import colorsys

import numpy as np


def linear(code: str) -> np.ndarray:
    """'rrggbb' as linear light (3,)."""
    return np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]) ** 2.2


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """(3,) linear."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) ** 2.2

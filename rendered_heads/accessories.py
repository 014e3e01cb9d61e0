"""Glasses and earrings, as tubes of one colour, at rest, in dm."""

import numpy as np
import torch

from .identity import Clothes
from .rig import Rig
from .surface import Surface, grid_faces, plain_surface, tube


def glasses(rig: Rig, shape: torch.Tensor, clothes: Clothes) -> list[Surface]:
    kind = clothes.glasses
    if not kind:
        return []
    eyes = shape[rig.eyes].mean(1).cpu().numpy()  # (2, 3) left, right
    bridge = rig.vertices
    nose = (bridge[:, 0].abs() < 0.12) & ((bridge[:, 1] - 7.25).abs() < 0.1) & (bridge[:, 2] > 1.0)
    front = float(shape[nose, 2].max()) + 0.05
    wide, high, power = {
        "round": (0.27, 0.25, 2.0),
        "square": (0.265, 0.18, 4.5),
        "oval": (0.29, 0.18, 2.2),
        "half": (0.29, 0.17, 3.0),
        "cat": (0.29, 0.19, 2.6),
    }[kind]
    wide, high = wide * clothes.glasses_size, high * clothes.glasses_size
    thin = 0.016 if kind in ("half", "oval") else 0.024
    turn = np.linspace(-0.2, np.pi + 0.2, 24) if kind == "half" else np.linspace(0, 2 * np.pi, 41)
    pieces = []
    for eye, side in zip(eyes, (1, -1)):
        across = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** (2 / power)
        above = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** (2 / power)
        lift = 0.06 * np.clip(across * side, 0, 1) ** 2 * np.clip(above, 0, 1) if kind == "cat" else 0.0
        outer = (across * side + 1) / 2
        ring = np.stack([eye[0] + side * 0.02 + wide * across, eye[1] - 0.03 + high * above + lift, front - 0.12 * outer**2], 1)
        pieces.append((ring, thin))
        hinge = np.array([eye[0] + side * (wide + 0.02), eye[1] + 0.04, front - 0.12])
        pieces.append(
            (np.stack([hinge, hinge + (side * 0.13, 0.0, -0.35), [side * (abs(eye[0]) + 0.52), eye[1] - 0.01, 0.28]]), 0.018)
        )
    inner = [eye[0] - side * (wide - 0.03) for eye, side in zip(eyes, (1, -1))]
    middle = eyes.mean(0)
    pieces.append(
        (np.array([[inner[1], middle[1], front], [middle[0], middle[1] + 0.04, front + 0.03], [inner[0], middle[1], front]]), thin)
    )
    found = []
    for path, radius in pieces:
        vertices, _ = tube(np.asarray(path, float), radius, 6)
        found.append(plain_surface(vertices, grid_faces(7, len(path), shape.device), shape.device))
    return found


def earrings(rig: Rig, shape: torch.Tensor) -> list[Surface]:
    found = []
    for side in (1, -1):
        ear = ((rig.ears > 0.5) & (rig.vertices[:, 0] * side > 0)).nonzero()[:, 0]
        lobe = shape[ear[shape[ear, 1].argmin()]].cpu().numpy() + (side * 0.02, -0.05, 0.0)
        t = np.linspace(0.03, 0.97, 8)
        path = lobe + np.stack([0 * t, 0.055 * np.cos(np.pi * t), 0 * t], 1)
        vertices, _ = tube(path, 0.055 * np.sin(np.pi * t), 10)
        found.append(plain_surface(vertices, grid_faces(11, 8, shape.device), shape.device))
    return found

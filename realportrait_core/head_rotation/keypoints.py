"""The positions of M's 26 keypoints on MediaPipe's face mesh, so that photographs can supervise M as rendered heads do.

On rendered heads the keypoints are 22 points of the skin, two irises and two upper lids (`train/mini/head_truth.py`). Here each is
a point on one of the mesh's triangles, by barycentric weights. These were fitted where both are known: MediaPipe's landmarker on
296 frames of 71 rendered heads (yaw within 28 degrees, the landmarker sure of its face), by least squares without the worst fifth;
triangle and residual were chosen by two-fold cross-validation over the heads. A single vertex misses by up to 2.7 times as much.
Irises are the mesh's own, and the lids, which are mirror images in the rendered heads, were fitted together; the other rendered
points are not symmetrical.
"""

import torch
from torch import Tensor

from .topology import WITH_IRISES, checked_mesh

NUM_KP = 26

# Keypoint, vertices, their weights; residual (root mean square of the better four fifths) in px of a face 128 px high.
# Keypoint 2, high on the forehead under the hair, lies beyond the mesh and is left out.
PLACES = (
    (0, (1, 44, 19), (0.59, 0.39, 0.02), 2.7),  # nose
    (1, (337, 151, 336), (0.31, 0.61, 0.08), 2.1),  # forehead
    (3, (122, 196, 6), (0.72, 0.09, 0.19), 1.9),  # bridge
    (4, (167, 37, 164), (0.23, 0.25, 0.52), 2.5),  # upper lip
    (5, (90, 91, 180), (0.07, 0.22, 0.71), 1.6),  # lower lip
    (6, (391, 269, 322), (0.36, 0.30, 0.34), 1.6),  # left and right of the lips
    (7, (186, 92, 216), (0.21, 0.34, 0.45), 2.0),
    (8, (18, 200, 313), (0.06, 0.31, 0.63), 1.6),  # below the lips
    (9, (171, 175, 208), (0.16, 0.31, 0.53), 2.4),  # chin
    (10, (336, 296, 337), (0.24, 0.53, 0.23), 1.8),  # inner brows
    (11, (107, 108, 66), (0.62, 0.29, 0.09), 1.8),
    (12, (282, 283, 334), (0.29, 0.71, 0.00), 2.1),  # outer brows
    (13, (105, 104, 63), (0.45, 0.53, 0.02), 2.0),
    (14, (451, 349, 450), (0.50, 0.00, 0.50), 1.1),  # below the eyes
    (15, (228, 229, 110), (0.07, 0.09, 0.84), 1.0),
    (16, (414, 286, 413), (0.62, 0.20, 0.18), 1.0),  # above the eyes
    (17, (157, 56, 158), (0.58, 0.29, 0.13), 1.0),
    (18, (280, 330, 425), (0.73, 0.27, 0.00), 2.4),  # cheeks
    (19, (50, 187, 205), (0.37, 0.14, 0.49), 2.3),
    (20, (394, 379, 364), (0.35, 0.62, 0.03), 3.7),  # jaw
    (21, (150, 149, 169), (0.00, 0.44, 0.56), 2.6),
    (22, (473, 473, 473), (1.00, 0.00, 0.00), 2.2),  # irises
    (23, (468, 468, 468), (1.00, 0.00, 0.00), 2.2),
    (24, (386, 258, 258), (0.33, 0.67, 0.00), 1.8),  # upper lids
    (25, (159, 28, 28), (0.33, 0.67, 0.00), 1.8),
)
KNOWN = tuple(row[0] for row in PLACES)


def seen_keypoints(mesh: Tensor) -> tuple[Tensor, Tensor]:
    """The keypoints (B, 26, 3) of mesh (B, 478, 3), in its px, 0 for one that the mesh lacks; and which it has, (26,) bool.

    InputError for a mesh without irises.
    """
    checked_mesh(mesh, len(mesh), (WITH_IRISES,))
    numbers, vertices, weights, _ = zip(*PLACES)
    numbers, vertices = (torch.tensor(x, device=mesh.device) for x in (numbers, vertices))
    weights = torch.tensor(weights, device=mesh.device, dtype=mesh.dtype)
    found = (mesh[:, vertices] * weights[..., None]).sum(2)  # (B, 25, 3)
    known = torch.zeros(NUM_KP, dtype=torch.bool, device=mesh.device).index_fill(0, numbers, True)
    return mesh.new_zeros(len(mesh), NUM_KP, 3).index_copy(1, numbers, found), known


def residuals(device: torch.device | str = "cpu") -> Tensor:
    """The mesh's error at each keypoint (26,), px of a face 128 px high, infinite for one that it lacks: for a loss's weights."""
    values = dict(zip(KNOWN, (row[3] for row in PLACES)))
    return torch.tensor([values.get(k, float("inf")) for k in range(NUM_KP)], device=device)

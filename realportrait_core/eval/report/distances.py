"""Fréchet distances of a table: over the features of all its frames, in the files beside the cases' records."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..judges.frechet import frechet_distance
from ..record import CaseRecord, record_path
from ..rows import TRUTH
from .statistics import Figure, rows_of

KINDS = {"inception": "fid", "stlpips_vgg": "frechet_stlpips"}  # of features -> metric


def frechet_figures(folder: Path, records: list[CaseRecord]) -> dict[str, dict[str, Figure]]:
    """Row -> metric -> one figure for all cases of a table that have features of the row and of the truth; {} without any.

    It has no spread and no interval: with cases drawn twice, the distance grows.
    """
    files = [features for record in records if (features := read_features(record_path(folder, record.table, record.name)))]
    found: dict[str, dict[str, Figure]] = {}
    for row in rows_of(records):
        for kind, metric in KINDS.items():
            own, true = f"{row}/{kind}", f"{TRUTH}/{kind}"
            pairs = [(file[own], file[true]) for file in files if own in file and true in file]
            if row == TRUTH or not pairs:
                continue
            result, truth = (torch.cat(part).float() for part in zip(*pairs))
            found.setdefault(row, {})[metric] = Figure(
                mean=frechet_distance(result, truth),
                spread=None,
                cases=len(pairs),
                of_cases=len(records),
                frames=len(result),
                of_frames=sum(record.scored for record in records),
            )
    return found


def read_features(record: Path) -> dict[str, Tensor]:
    """Of the case with this record: "ROW/KIND" -> (n, D); {} where there is no such file, or it is damaged."""
    path = record.with_suffix(".safetensors")
    try:
        return load_file(path) if path.is_file() else {}
    except (OSError, SafetensorError):
        return {}

"""What decides the figures of a run beside the cases' own files; its fingerprint tells whether a case is finished."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from ...batch.record import file_mark, sha256
from ...batch.worker import Weights
from ...diffusion.sampling import Solver
from ...errors import InputError, WeightsError
from ...vid2vid.checkpoint import stitching_beside, vid2vid_files
from ..methods.results import result_files
from ..rows import SEED
from .panel import JudgeFiles
from .prepare import SIZE
from .tables import Job

FORMAT = 1  # to be raised where a figure is computed in another way: cases of older runs are then measured again


@dataclass(frozen=True)
class Setup:
    """Files and settings of a run."""

    weights: Weights  # vid2vid, dit, vae, detector
    judges: JudgeFiles = JudgeFiles()
    methods: dict[str, Path] = field(default_factory=dict)  # row -> folder of another method's videos
    liveportrait: Path | None = None  # its public weights
    networks: dict[str, Path] = field(default_factory=dict)  # row -> another diffusion transformer for the same Face Vid2vid
    steps: int | None = None  # None: as the weights were trained for
    solver: Solver | None = None
    guidance: float | None = None
    every: int = 4  # of how many scored frames one is seen by the slow judges: faces, ST-LPIPS, LPIPS, features
    every_long: int = 5  # the same in the table `long`

    def judged_every(self, job: Job) -> int:
        return self.every_long if job.table == "long" else self.every

    def marks(self) -> dict[str, str]:
        """The SHA-256 of every file of networks, by role: read once a run. WeightsError where one is missing."""
        try:
            marks = self.weights.marks() | {f"judge.{role}": digest for role, digest in self.judges.marks().items()}
            marks |= {f"network.{row}": sha256(path) for row, path in self.networks.items()}
            if self.liveportrait is not None:
                parts = dict(vid2vid_files(self.liveportrait))
                if (stitching := stitching_beside(self.liveportrait)) is not None:
                    parts["stitching"] = stitching
                marks |= {f"liveportrait.{part}": sha256(path) for part, path in parts.items()}
        except OSError as error:
            raise WeightsError(f"{error.filename} cannot be read ({error.strerror}).") from error
        return marks

    def fingerprint(self, job: Job, marks: dict[str, str]) -> str:
        """Of everything that the figures of a case depend on; files of the case count by name, size and time.

        InputError where one of them is missing.
        """
        try:
            files = {role: file_mark(path) for role, path in job.files().items()}
            methods = {
                row: [file_mark(file) for file in result_files(folder, job.table, job.name)] for row, folder in self.methods.items()
            }
        except OSError as error:
            raise InputError(f"{job} cannot be read: {error}.") from error
        parts = {
            "format": FORMAT,
            "networks": marks,
            "sampling": [self.steps, self.solver, self.guidance, SEED],
            "compared": [SIZE, self.judged_every(job)],
            "case": [job.table, job.name, job.case.frames, job.case.most, job.turned and job.turned[2]],
            "files": files,
            "methods": methods,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""A job of the batch in a process of its own, which tests/test_batch.py kills or measures.

python tests/batch_jobs.py WEIGHTS DETECTOR FOLDER EVENT PORTRAIT DRIVING OUT METHOD SEED SPEED: makes FOLDER/OUT.mp4 with the
networks of the folder WEIGHTS, and prints the largest memory in MB, its own and its children's. EVENT: the renaming before which
it is killed; 0: none.
"""

import resource
import sys
from pathlib import Path

from long_jobs import dies_at  # which makes the core importable, too

from realportrait_core.batch.jobs import Job
from realportrait_core.batch.worker import Weights, make_animator


def main(weights: str, detector: str, folder: str, event: str, portrait: str, driving: str, *job: str) -> None:
    files = Weights(*(Path(weights) / f"{name}.safetensors" for name in ("vid2vid", "dit", "vae")), Path(detector))
    make = make_animator(files, {}, Path(folder), "cpu", 1)
    if int(event):
        dies_at(int(event))
    out, method, seed, speed = job
    make(Job(Path(portrait), Path(driving), out, method, int(seed), speed))
    print(*(resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The readers of bytes once more, by a fuzzer that looks for inputs which reach code that none before has reached.

atheris has wheels for Linux alone: where it is not installed (`pip install atheris==3.0.0` into .venv/), these tests are skipped.
"""

import importlib.util
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzzing import SEED, memory_folder, motion_template
from onnx_bytes import colour_embedding
from safetensors.torch import save

from realportrait_core.checkpoint import bundle_metadata
from realportrait_core.vae.tiny import VAEConfig

TESTS = Path(__file__).resolve().parents[1]
SOUND = {
    "header": save({"a": torch.zeros(2, 3), "b": torch.zeros(1).half()}, bundle_metadata("vae", VAEConfig())),
    "pickle": pickle.dumps(motion_template(), 4),
    "onnx": colour_embedding(4, side=8, scales=True),
}
RUNS = {"header": 100_000, "pickle": 200_000, "onnx": 300_000}


@pytest.mark.nightly
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", RUNS)
def test_inputs_that_reach_new_code(target, record_property):
    options = [
        f"-runs={RUNS[target]}",
        f"-seed={SEED + 1}",
        "-timeout=30",
        "-rss_limit_mb=3000",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    with memory_folder() as folder:
        corpus = folder / "corpus"
        corpus.mkdir()
        (corpus / "sound").write_bytes(SOUND[target])
        command = [sys.executable, str(TESTS / "fuzz" / "atheris_targets.py"), target, str(corpus), *options]
        told = dict(os.environ, PYTHONPATH=str(TESTS), OMP_NUM_THREADS="1")
        done = subprocess.run(command, env=told, cwd=folder, capture_output=True, text=True, errors="replace")
        found = len(list(corpus.iterdir()))
    assert done.returncode == 0, done.stderr[-4000:]
    runs = int(re.search(r"number_of_executed_units: (\d+)", done.stderr)[1])
    assert runs >= RUNS[target] and found > 10, done.stderr[-2000:]
    record_property("fuzz runs guided by coverage", runs)

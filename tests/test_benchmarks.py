"""The literal forms are the numerical reference of the real parts; the command that measures both runs at toy size."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import parts
from benchmarks.measure import relative_difference
from benchmarks.sizes import SIZES

ROOT = Path(__file__).resolve().parent.parent
TINY = SIZES["tiny"]
CLOSE = 2e-6                            # of the largest value: float32, other order of sums


def with_dit(**changes):
    return replace(TINY, step=replace(TINY.step, **changes))


def with_vid2vid(**changes):
    return replace(TINY, config=replace(TINY.config, vid2vid=replace(TINY.config.vid2vid, **changes)))


@torch.inference_mode()
def difference(part: parts.Part) -> float:
    return relative_difference(part.ours(), part.literal())


# As PAPER, as MINI, and where the picture's tokens pad an odd side.
@pytest.mark.parametrize("sizes", [
    TINY,
    with_dit(qk_norm_legacy=False, learned_sigma=False, motion_latent=5, reference_motion=True),
    replace(TINY, step_px=72),
], ids=["paper", "mini", "odd"])
def test_step_is_the_literal_one(sizes):
    assert difference(parts.step(sizes, "cpu")) < CLOSE


@pytest.mark.parametrize("channels", [4, 6])            # directly, and with the channels mixed first
def test_motion_map_is_the_literal_one(channels):
    dit = replace(TINY.config.dit, motion_channels=channels)
    assert difference(parts.motion_map(replace(TINY, config=replace(TINY.config, dit=dit)), "cpu")) < CLOSE


@pytest.mark.parametrize("first_order", [False, True])
def test_warping_is_the_literal_one(first_order):
    assert difference(parts.warp(with_vid2vid(first_order=first_order), "cpu")) < CLOSE


def test_a_wrong_part_is_told():
    part = parts.motion_map(TINY, "cpu")
    assert difference(replace(part, ours=lambda: part.literal() * 1.001)) > 5e-4


def test_command_writes_tables_json_and_plot(tmp_path):
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    command = [sys.executable, "-m", "benchmarks", "--preset", "tiny", "--repeats", "2"]
    done = subprocess.run([*command, "--json", figures, "--plot", plot], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text(encoding="utf-8"))["comparisons"]
    assert [row["part"] for row in rows] == ["denoising step", "motion map", "W"]
    for row in rows:
        assert row["part"] in done.stderr and row["difference"] < CLOSE and min(row["ratios"]) > 0
    assert rows[1]["literal_bytes"] > 0
    bars = [element for element in ElementTree.parse(plot).iter() if element.get("fill") == "#4878a8"]
    assert len(bars) == len(rows)

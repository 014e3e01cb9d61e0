"""The literal forms are the numerical reference of the real parts; the command that measures them runs at toy size."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yunet
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as benchmarks_command
from benchmarks import limits, parts, quality
from benchmarks.literal.dit import attention
from benchmarks.measure import compare, relative_difference
from benchmarks.sizes import SIZES, TINY_LIMITS
from realportrait_core.config import PAPER, ConditionerConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit import Caching, RealPortraitDiT
from realportrait_core.errors import InputError
from realportrait_core.eval.modes.protocol import Networks
from realportrait_core.face.detect import FaceDetector
from realportrait_core.speed import PRESETS, Speed
from realportrait_core.vae import TinyVAE
from realportrait_core.vid2vid import FaceVid2Vid

ROOT = Path(__file__).resolve().parent.parent
TINY = SIZES["tiny"]
CLOSE = 1e-5  # of the largest value: float32, another order of sums


def with_dit(**changes):
    return replace(TINY, step=replace(TINY.step, **changes))


def with_vid2vid(**changes):
    return replace(TINY, config=replace(TINY.config, vid2vid=replace(TINY.config.vid2vid, **changes)))


@torch.inference_mode()
def difference(part: parts.Part) -> float:
    return relative_difference(part.ours(), part.literal())


# As PAPER, as MINI, and where the picture's tokens pad an odd side.
@pytest.mark.parametrize(
    "sizes",
    [
        TINY,
        with_dit(
            qk_norm_legacy=False,
            learned_sigma=False,
            conditioner=ConditionerConfig(motion_latent=5, reference_motion=True, mask_reach=1.5),
        ),
        replace(TINY, step_px=72),
    ],
    ids=["paper", "mini", "odd"],
)
def test_step_is_the_literal_one(sizes):
    assert difference(parts.step(sizes, "cpu")) < CLOSE


@pytest.mark.parametrize("sizes", [TINY, with_dit(qk_norm_legacy=False)], ids=["paper", "mini"])
@pytest.mark.parametrize("part", [parts.attention_in_space, parts.attention_in_time, parts.two_sources])
def test_attention_is_the_literal_one(part, sizes):
    assert difference(part(sizes, "cpu")) < CLOSE


@pytest.mark.parametrize("channels", [4, 6])  # directly, and with the channels mixed first
def test_motion_map_is_the_literal_one(channels):
    dit = replace(TINY.config.dit, motion_channels=channels)
    assert difference(parts.motion_map(replace(TINY, config=replace(TINY.config, dit=dit)), "cpu")) < CLOSE


@pytest.mark.parametrize(
    "form", [{}, {"mask_kernel": 7}, {"first_order": True}, {"dense_down": 1, "dense_blocks": 1, "first_order": True}]
)
def test_warping_is_the_literal_one(form):
    assert difference(parts.warp(with_vid2vid(**form), "cpu")) < CLOSE


@pytest.mark.parametrize("form", [{}, {"upscale": 2, "generator_blocks": 2}])
@pytest.mark.parametrize("part", [parts.appearance, parts.motion, parts.generator])
def test_the_networks_around_it_are_the_literal_ones(part, form):
    assert difference(part(with_vid2vid(**form), "cpu")) < CLOSE


def test_a_wrong_part_is_told():
    part = parts.motion_map(TINY, "cpu")
    assert difference(replace(part, ours=lambda: part.literal() * 1.001)) > 5e-4


@pytest.fixture
def command(monkeypatch):
    """`python -m benchmarks` with these words, in this process."""
    threads = torch.get_num_threads()

    def run(*words) -> None:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, words)])
        benchmarks_command.main()

    yield run
    torch.set_num_threads(threads)


def test_command_writes_tables_json_and_plot(tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--device", "cpu", "--preset", "tiny", "--repeats", "2", "--json", figures]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text(encoding="utf-8"))["parts"]
    assert [row["part"] for row in rows] == [
        "denoising step",
        "attention in space",
        "two sources apart",
        "attention in time",
        "motion map",
        "F",
        "M",
        "W",
        "G",
    ]
    for row in rows:
        assert row["part"] in done.stdout and row["difference"] < CLOSE and min(row["ratios"]) > 0
    assert rows[4]["literal_bytes"] > 0
    assert [row["part"] for row in rows if row["frames_per_second"]] == ["F", "M", "W", "G"]
    rate = done.stdout.splitlines()[-1].split(" | ")
    assert rate[0] == "| tiny" and float(rate[-1].rstrip(" |")) < float(rate[-2]) < float(rate[2])
    drawn = ElementTree.parse(figures.with_suffix(".svg")).iter()
    assert len([element for element in drawn if element.get("fill") == "#4878a8"]) == len(rows)


def test_ratios_and_rates_follow_the_clock():
    """Readings of a clock: the literal call takes 3 s, ours 2 s."""
    row = compare("tiny", "generator", "cpu", 2, clock=iter([0, 3, 3, 5, 5, 8, 8, 10]).__next__)
    assert (row.literal_s, row.ours_s, row.ratio, row.ratios) == (3, 2, 1.5, (1.5, 1.5))
    assert row.frames_per_second == TINY.vid2vid_frames / 2


def test_arithmetic_of_a_step_is_what_pytorch_counts():
    cfg = replace(TINY.step, hidden=96)
    # PyTorch does not count its own fused attention on the CPU.
    model = parts.random_weights(RealPortraitDiT(cfg, attention=lambda *qkv: attention(*qkv).transpose(1, 2).flatten(2)), "cpu")
    arguments = limits.step_arguments(model, 3, 128, "cpu", torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model(*arguments)
    # What is told to all tokens, times and sizes, is left out.
    assert 0.95 < limits.step_flop(cfg, 3, 64) / counted.get_total_flops() <= 1
    assert limits.step_flop(PAPER.dit, 16, 1024) == pytest.approx(34.5e12, rel=1e-3)


def test_limits_run_where_there_is_no_gpu(command, tmp_path, capsys):
    report = tmp_path / "limits.json"
    command("limits", "--preset", "tiny", "--repeats", "1", "--json", report)
    found = json.loads(report.read_text(encoding="utf-8"))["limits"]
    figures, clips, whole = found["steps"], found["clips"], found["end_to_end"]
    assert [(row["frames"], row["px"], row["way"]) for row in figures] == [
        (3, 64, "kernels"),
        (3, 64, "plain"),
        (3, 64, "compiled"),
        (2, 64, "kernels"),
        (3, 128, "kernels"),
        (3, 64, "fp8 weights"),
    ]
    assert figures[0]["difference"] == 0 and figures[2]["difference"] < CLOSE  # on a CPU there are no kernels
    assert CLOSE < figures[-1]["difference"] < 0.2
    assert [(row["way"], row["steps"]) for row in clips] == [
        ("exact", 50),
        *((name, speed.steps) for name, speed in PRESETS.items()),
        ("exact, fp8 weights", 50),
    ]
    figures, clips = [limits.StepFigure(**row) for row in figures], [limits.ClipFigure(**row) for row in clips]
    assert all(row.times_floor > 0 for row in [*figures, *clips])
    assert all(row.new_frames_per_second * row.seconds == pytest.approx(TINY.config.clip_frames - 1) for row in clips)
    whole = limits.EndToEnd(**whole)
    assert whole.frames == TINY_LIMITS.driver_frames and whole.frames_per_second * whole.seconds == pytest.approx(whole.frames)
    name, _, *lines = capsys.readouterr().out.splitlines()
    assert name == found["size"] == TINY.name and lines == limits.table(figures, clips, whole).splitlines()
    assert len(lines) == 2 + len(figures) + 1 + 2 + len(clips) + 2 and "End to end: 4 frames with 2 steps" in lines[-1]
    assert {line.count("|") for line in lines[: 2 + len(figures)]} == {10}
    assert {line.count("|") for line in lines[3 + len(figures) : -2]} == {7}


def test_quality_is_measured_against_truth_and_against_the_first_variant():
    """On networks of random weights; the first 4 frames of one clip."""
    pytest.importorskip("av")
    config, data = TINY.config, ROOT / "tests" / "data"
    networks = Networks(
        parts.random_weights(FaceVid2Vid(config.vid2vid), "cpu"),
        parts.random_weights(RealPortraitDiT(config.dit), "cpu"),
        parts.random_weights(TinyVAE((4, 4, 4, 4)), "cpu"),
        FaceDetector(yunet.onnx()),
        linear_schedule(),
    )
    distilled = parts.random_weights(RealPortraitDiT(replace(config.dit, distilled_steps=2)), "cpu", seed=1)
    tried = {
        "all": Speed(4),
        "the same": Speed(4, caching=Caching(control_every=1)),
        "fewer": Speed(2),
        "cached": Speed(4, "dpmpp_2m", Caching(control_every=2, threshold=0.1)),
        "ancestral": Speed(3, "ancestral"),
    }
    tried = {name: quality.Variant(speed) for name, speed in tried.items()}
    tried["distilled"] = quality.Variant(Speed(2, "ddim_trailing"), distilled)
    clips, left_out = quality.prepared_clips(networks, data, 1, 4)
    assert len(clips) == 1 and left_out == {}
    rows = list(quality.rows(networks, clips, tried, "cpu"))
    assert [row.name for row in rows] == list(tried)
    for row in rows[:2]:
        assert row.reference["psnr_db"] == 100 and row.reference["keypoint_error_px"] == 0
    assert all(row.reference["psnr_db"] < 100 for row in rows[2:])
    assert rows[0].truth == rows[1].truth and rows[0].truth["psnr_db"] < 100
    assert rows[0].times_as_fast == 1 and all(row.times_as_fast > 0 for row in rows)
    columns = quality.header().splitlines()[0].count("|")
    assert all(quality.line(row).count("|") == columns for row in rows)
    for limit, frames in ((0, 4), (1, 1)):
        with pytest.raises(InputError, match=f"--limit is {limit} and --frames {frames}"):
            quality.prepared_clips(networks, data, limit, frames)


def test_rows_of_quality():
    """The reference first, no speed twice, every preset named; weights for few steps in a row of their own."""
    plain = quality.variants(None)
    assert next(iter(plain.values())).speed == Speed(50)
    speeds = [variant.speed for variant in plain.values()]
    assert all(speeds.count(speed) == 1 for speed in speeds)
    for name, speed in PRESETS.items():
        assert [row for row, variant in plain.items() if variant.speed == speed][0].startswith(name)
    few = RealPortraitDiT(replace(TINY.config.dit, distilled_steps=4))
    assert quality.variants(few) == plain | {"4 steps, distilled": quality.Variant(Speed(4, "ddim_trailing"), few)}
    with pytest.raises(InputError, match="these weights are not"):
        quality.variants(RealPortraitDiT(TINY.config.dit))


def test_fp8_weights_are_those_that_the_format_holds():
    dit = RealPortraitDiT(TINY.config.dit).initialize()
    ((name, variant),) = quality.fp8_row(dit).items()
    assert variant.speed == Speed(20) and "fp8" in name
    for plain, rounded in zip(dit.parameters(), variant.dit.parameters()):
        assert torch.equal(rounded, rounded.to(torch.float8_e4m3fn).to(rounded.dtype))
        assert (rounded - plain).abs().max() <= plain.abs().max() / 16
    assert any(not torch.equal(*pair) for pair in zip(dit.parameters(), variant.dit.parameters()))


def test_live_prints_the_frames_a_second_of_each_part(command, tmp_path, capsys):
    """Medians: the parts of a frame and the rest of it are about the whole."""
    figures = tmp_path / "live.json"
    command("live", "--preset", "tiny", "--repeats", "3", "--detector", yunet.onnx(), "--json", figures)
    rows, said = json.loads(figures.read_text(encoding="utf-8"))["live"]["tiny"], capsys.readouterr().out
    assert [row["part"] for row in rows] == ["face detection", "M", "W", "G", "crops, keypoints, pasting", "whole"]
    assert all(f"| {row['part']} | {1000 * row['seconds']:.1f} |" in said for row in rows)
    assert 0 < max(row["seconds"] for row in rows[:-1]) < rows[-1]["seconds"]


def test_quality_needs_a_folder_with_clips(command, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("quality", "--detector", yunet.onnx())
    assert "quality needs --data, and --dit" in capsys.readouterr().err
    words = ["quality", "--detector", yunet.onnx(), "--data", tmp_path, "--dit", quality.DISTILLED]
    done = subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "holds no .mp4 clip" in done.stderr and "Traceback" not in done.stderr


def test_departures_need_samples_and_clips(command, tmp_path, capsys):
    words = ["departures", "--detector", yunet.onnx(), "--data", tmp_path]
    with pytest.raises(SystemExit, match="2"):
        command(*words)
    said = capsys.readouterr().err
    assert "departures needs --data" in said and "--samples" in said
    with pytest.raises(InputError, match="holds no training sample"):
        command(*words, "--samples", tmp_path)


A_FEW_BLOCKS = """
import json
from dataclasses import asdict, replace
from benchmarks.memory import one_step
from realportrait_core.config import PAPER
print(json.dumps(asdict(one_step(replace(PAPER.dit, depth=2, control_depth=1), frames=2, px=512))))
"""


def test_a_step_of_the_papers_network_fits_into_10_gb():
    """The whole step takes minutes (python -m benchmarks memory). Here two blocks and two frames at its width and size:
    what passes through them is gone after each block, and is proportional to the frames."""
    done = subprocess.run([sys.executable, "-c", A_FEW_BLOCKS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few = json.loads(done.stdout)
    key_value = 2 * 1024 * PAPER.dit.hidden * 4  # bytes, K and V of a block
    assert few["reference"] == 2 * key_value
    weights = sum(value.nbytes for value in RealPortraitDiT(PAPER.dit, device="meta").state_dict().values())
    assert few["process"] + weights + PAPER.dit.depth * key_value + 16 / 2 * few["passing"] < 10e9

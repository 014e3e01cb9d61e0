"""What a departure from the paper is worth: variants, equal time for each, and the table."""

import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yunet
from toy import CLIPS, TOY, conditioned, folder, index, vid2vid  # noqa: F401, fixtures

from benchmarks import departures, quality
from benchmarks.parts import random_weights
from realportrait_core.config import MINI, ConditionerConfig
from realportrait_core.diffusion.schedule import linear_schedule
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError
from realportrait_core.eval.modes.protocol import Networks
from realportrait_core.face.detect import FaceDetector
from realportrait_core.train.initial import from_scratch
from realportrait_core.vae import TinyVAE


def test_each_variant_lacks_what_it_is_named_for():
    tried = departures.variants(MINI.dit)

    def fields(variant: departures.Variant) -> dict:
        own = asdict(variant.cfg.conditioner or ConditionerConfig())
        return asdict(variant.cfg) | {"conditioner": variant.cfg.conditioner is not None} | own

    changed = {
        name: {key for key, value in fields(variant).items() if value != fields(tried[variant.beside])[key]}
        for name, variant in tried.items()
        if variant.beside is not None
    }
    assert changed == {
        "no draft": {"draft_widths"},
        "plain loss": set(),
        "mask_reach 1": {"mask_reach"},
        "motion_blocks 0": {"motion_blocks"},
        "none of them": {"conditioner", "draft_widths", "reference_motion", "mask_reach", "motion_blocks", "motion_latent"},
        "no draft or reference_motion": {"reference_motion"},
        "MINI again": set(),
    }
    for variant in tried.values():
        plan = variant.plan(departures.mini_stages(0.5))
        stages, shares = zip(*plan)
        assert sum(shares) == 1 and [stage.mapper_only for stage in stages] == ([False] if variant.plain else [True, False])
        assert [shape.portraits for shape in stages[-1].shapes] == [2, 1] and (stages[-1].latent_regression == 0) == variant.plain


def test_departures_are_trained_for_equal_time_and_set_side_by_side(index, vid2vid):
    """Two variants of random networks, for a second of a core each, on two clips of 4 frames."""
    pytest.importorskip("av")
    networks = Networks(
        vid2vid,
        RealPortraitDiT(TOY.dit),
        random_weights(TinyVAE((4, 4, 4, 4)), "cpu"),
        FaceDetector(yunet.onnx()),
        linear_schedule(),
    )
    clips, _ = quality.prepared_clips(networks, Path(__file__).parent / "data", 2, 4)
    tried = departures.variants(conditioned(draft_widths=(8, 8, 8), motion_blocks=1))
    tried = {name: tried[name] for name in (departures.FULL, "none of them")}
    stages = replace(CLIPS, latent_regression=1.0, mapper_only=True), replace(CLIPS, latent_regression=1.0)
    began = time.process_time()
    rows = {row.name: row for row in departures.rows(networks, clips, tried, index, stages, 1 / 60, torch.float32)}
    assert time.process_time() - began > 2
    still, full, paper = rows.values()
    assert still.steps == () and len(full.steps) == 2 and len(paper.steps) == 1 and min(full.steps + paper.steps) > 0
    assert full.parameters > paper.parameters
    assert set(full.figures) == {1.0, 1.5} and set(full.figures[1.0]) == {"psnr_db", "keypoint_error_px"}  # no judge was named
    assert full.figures[1.0]["psnr_db"] != paper.figures[1.0]["psnr_db"]
    columns = departures.header().splitlines()[0].count("|")
    lines = [departures.line(row, rows) for row in rows.values()]
    assert all(line.count("|") == columns for line in lines) and "±" in lines[2] and "±" not in lines[1]
    with pytest.raises(InputError, match="two clips"):
        next(departures.rows(networks, clips[:1], tried, index, stages, 1.0, torch.float32))


def test_variants_are_chosen_by_name_with_what_they_are_set_beside():
    tried = departures.variants(MINI.dit)
    assert departures.chosen(tried, None) == tried
    assert list(departures.chosen(tried, "mask_reach 1,plain loss")) == ["MINI", "plain loss", "mask_reach 1"]
    both = "no draft or reference_motion"
    assert list(departures.chosen(tried, both)) == ["MINI", "no draft", both]
    with pytest.raises(InputError, match="no variant 'less'; there are MINI, no draft"):
        departures.chosen(tried, "less")


def test_a_variant_starts_from_the_weights_that_it_has_a_place_for():
    torch.manual_seed(0)
    given = from_scratch(conditioned(draft_widths=(8, 8, 8), motion_blocks=1))
    for variant in departures.variants(given.cfg).values():
        ours, theirs = departures.started(variant.cfg, given).state_dict(), given.state_dict()
        taken = {key for key, value in ours.items() if key in theirs and torch.equal(value, theirs[key])}
        assert {key for key in ours if key.startswith(("blocks.", "controlnet."))} <= taken
        if variant.cfg.conditioner is None:
            assert torch.equal(ours["motion_net.0.weight"], theirs["conditioner.mapper.0.weight"])
        else:
            assert "conditioner.mapper.0.weight" in taken
    whole = departures.started(given.cfg, given).state_dict()
    assert all(torch.equal(value, whole[key]) for key, value in given.state_dict().items())


def test_a_difference_is_known_as_well_as_its_clips_agree():
    assert departures.difference([3.0, 4.0, 8.0], [2.0, 2.0, 5.0]) == pytest.approx((2.0, 1 / 3**0.5))

"""Batches: the CSV, single jobs and the records without Ray; then a real cluster of two nodes, with a process that is killed."""

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import batch_jobs
import public
import pytest
import torch
import toy_sizes
import yunet
from ray_jobs import breaker, doubler
from recorder import Recorder
from videos import write

from realportrait_core.animation.extraction import extract_keypoints
from realportrait_core.animation.framing import frame_square
from realportrait_core.animation.mapping import motion_maps
from realportrait_core.animation.retargeting import drive_keypoints
from realportrait_core.animation.vid2vid_frames import face_frames, picture_size, portrait_frames
from realportrait_core.batch import __main__ as command
from realportrait_core.batch import pool, worker
from realportrait_core.batch.jobs import COLUMNS, Job, read_jobs
from realportrait_core.batch.pool import Share, WorkerDied, room, run_jobs, share_of
from realportrait_core.batch.record import clips_folder, ingredients, is_finished
from realportrait_core.batch.run import FAILED
from realportrait_core.batch.worker import Networks, Weights, driving_video, load_networks, make_animator, prepare
from realportrait_core.config import ConditionerConfig, DiTConfig, Vid2VidConfig
from realportrait_core.dit.checkpoint import save_dit
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.errors import InputError, WeightsError
from realportrait_core.face.track import portrait_points, track
from realportrait_core.generate import generate
from realportrait_core.long.renderers import core_renderer
from realportrait_core.long.run import animate_long
from realportrait_core.paste import paste
from realportrait_core.speed import preset
from realportrait_core.vae import TinyVAE, save_vae
from realportrait_core.vid2vid import FaceVid2Vid
from realportrait_core.vid2vid.checkpoint import save_vid2vid
from realportrait_core.video.audio import Audio
from realportrait_core.video.loading import load_video
from realportrait_core.video.pictures import read_picture
from realportrait_core.video.source import VideoFile, probe
from realportrait_core.video.timeline import Selection
from realportrait_core.video.writing import write_video

ASSETS = yunet.ROOT / "assets"
PORTRAIT, DRIVING = ASSETS / "portrait.png", ASSETS / "driving.mp4"
FRAMES = 40  # of the driving video with sound; several clips of the network


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Weights:
    """Tiny networks, filled at random."""
    pytest.importorskip("cv2")
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    conditioner = ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(4, 4, 4))
    dit = RealPortraitDiT(DiTConfig(**toy_sizes.DIT | dict(conditioner=conditioner)))
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=0.1)
    save_vid2vid(folder / "vid2vid.safetensors", FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID)))
    save_dit(folder / "dit.safetensors", dit)
    save_vae(folder / "vae.safetensors", TinyVAE((4, 4, 4, 4)))
    return Weights(*(folder / f"{name}.safetensors" for name in ("vid2vid", "dit", "vae")), yunet.onnx())


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """talk.mp4: the driving video of the assets at 25 a second with sound; wall.png: no face."""
    folder = tmp_path_factory.mktemp("media")
    once = load_video(VideoFile("driving.mp4", DRIVING), Selection()).images
    frames = torch.cat([once, once.flip(0)] * 3)[:FRAMES]
    write(folder / "talk.mp4", (frames * 255).byte().numpy(), fps=25, seconds=FRAMES / 25)
    import cv2

    cv2.imwrite(str(folder / "wall.png"), torch.full((64, 64, 3), 90, dtype=torch.uint8).numpy())
    return folder


def write_rows(path: Path, rows: list[dict]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        out.writeheader()
        out.writerows(rows)
    return path


def row(**cells) -> dict:
    return {"portrait": str(PORTRAIT), "driving": str(DRIVING), "out": "one"} | cells


# The CSV


def test_paths_are_relative_to_the_file_and_settings_are_read(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.png").write_bytes(PORTRAIT.read_bytes())
    settings = dict(method="vid2vid", seed="7", speed="fast", guidance="1.5", start="0.4", frames="3", fps="12.5", paste="yes")
    assert settings.keys() == COLUMNS.keys()
    path = write_rows(tmp_path / "jobs.csv", [row(portrait="faces/a.png", out="day 1/ü.mp4", **settings), row(seed="")])
    first, second = read_jobs(path)
    assert first == Job(
        (tmp_path / "faces" / "a.png").resolve(), DRIVING.resolve(), "day 1/ü", "vid2vid", 7, "fast", 1.5, 0.4, 3, 12.5, True
    )
    assert second == Job(PORTRAIT.resolve(), DRIVING.resolve(), "one")


def test_unknown_missing_and_doubled_columns_are_named(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("portrait,out,sed,seed,seed,stepps\n")
    with pytest.raises(InputError, match="unknown columns: 'sed', 'stepps'; .*twice: 'seed'; missing columns: 'driving'"):
        read_jobs(path)


@pytest.mark.parametrize(
    "cells, said",
    [
        (dict(portrait="nowhere.png"), "no file .*nowhere.png, its portrait"),
        (dict(portrait="x" * 300), "its portrait .* cannot be read .File name too long"),
        (dict(portrait=str(DRIVING)), "no JPEG, PNG or WebP"),
        (dict(driving=str(PORTRAIT)), "is not a video"),
        (dict(driving=""), "driving must not be empty"),
        (dict(seed="-1"), "seed is '-1'; it must be a whole number"),
        (dict(seed="1.5"), "seed is '1.5'"),
        (dict(seed=str(2**64)), "below 2.64"),
        (dict(guidance="0.5"), "guidance is '0.5'"),
        (dict(start="nan"), "start is 'nan'; it must be seconds"),
        (dict(speed="quick"), "one of exact, "),
        (dict(paste="maybe"), "yes or no"),
        (dict(out="../up"), "within the output folder"),
        (dict(out="/tmp/up"), "within the output folder"),
        (dict(out="C:\\up"), "within the output folder"),
        (dict(out=".hidden.mp4"), "begin with a dot"),
        (dict(out="GOOD.mp4"), "that of line 2 too"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, cells, said):
    path = write_rows(tmp_path / "jobs.csv", [row(out="good"), row(out="bad") | cells])
    with pytest.raises(InputError, match=f"1 of the 2 rows .*\n?line 3: .*{said}"):
        read_jobs(path)


def test_a_circle_of_links_is_a_wrong_row(tmp_path):
    try:
        (tmp_path / "round.png").symlink_to("round.png")
    except OSError:
        pytest.skip("no links can be made here")
    path = write_rows(tmp_path / "jobs.csv", [row(portrait=str(tmp_path / "round.png"))])
    with pytest.raises(InputError, match="line 2: .*round.png"):
        read_jobs(path)


def test_every_wrong_row_is_reported_at_once(tmp_path):
    path = write_rows(tmp_path / "jobs.csv", [row(out=f"n{i}", frames="some") for i in range(25)])
    with pytest.raises(InputError) as caught:
        read_jobs(path)
    assert str(caught.value).count("line ") == 20 and "... and 5 more" in str(caught.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("portrait,driving,out\n", "no row"),
        ("portrait,driving,out\na,b\n", "fewer cells"),
        ("portrait,driving,out\na,b,c\0\n", "NUL"),
    ],
)
def test_files_without_whole_rows(tmp_path, text, said):
    path = tmp_path / "jobs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_jobs(path)


# One job, without Ray


def animate(networks: Networks, job: Job, folder: Path) -> torch.Tensor:
    """The frames (L, H, W, 3) of a job as they are before encoding."""
    driving = driving_video(job)
    driven, render = prepare(networks, job, driving)
    recorder = Recorder(render)
    animate_long(networks.vid2vid, driven, recorder, folder, driving.fps)
    return torch.cat(recorder.frames)


@torch.inference_mode()
def in_memory(networks: Networks, job: Job) -> torch.Tensor:
    """The same by the path that has the whole video in memory."""
    picture = read_picture(VideoFile(job.portrait.name, job.portrait))
    images = load_video(VideoFile(job.driving.name, job.driving), driving_video(job).selection).images
    points, portrait = portrait_points(picture, networks.detector), torch.from_numpy(picture)[None].float() / 255
    given, size = (portrait, images, points, track(images, networks.detector)), networks.dit.cfg.input_sq_size
    if job.method == "vid2vid":
        keypoints = replace(extract_keypoints(networks.vid2vid, *given), finish=networks.stitch)
        motion = motion_maps(networks.vid2vid, drive_keypoints(keypoints), size)
        if job.paste:
            return torch.cat(list(portrait_frames(networks.vid2vid, motion, portrait)))
        return torch.cat([chunk.movedim(1, -1) for chunk in face_frames(networks.vid2vid, motion)])
    speed = None if job.speed == "exact" else preset(job.speed, networks.dit.cfg)
    networks = (networks.vid2vid, networks.dit, networks.vae, networks.schedule)
    frames, _ = generate(*networks, *given, speed, seed=job.seed, guidance=job.guidance)
    return paste(portrait, frames, frame_square(points, *picture.shape[:2], size, "auto"), size)[0] if job.paste else frames


@pytest.mark.parametrize(
    "settings",
    [
        dict(seed=5, start=0.2, frames=17),
        dict(speed="fast", guidance=1.5, fps=12.5, frames=17, paste=True),
        dict(method="vid2vid", start=0.2, frames=17),
        dict(method="vid2vid", fps=12.5, frames=17, paste=True),
    ],
    ids=lambda settings: " ".join(f"{name} {value}" for name, value in settings.items()),
)
def test_frames_are_bit_for_bit_those_of_the_path_in_memory(weights, media, tmp_path, settings):
    networks, job = load_networks(weights, "cpu"), Job(PORTRAIT, media / "talk.mp4", "one", **settings)
    frames = animate(networks, job, tmp_path)
    assert len(frames) == 17 and torch.equal(frames, in_memory(networks, job))


def test_video_has_the_driving_videos_rate_and_sound(weights, media, tmp_path):
    job = Job(PORTRAIT, media / "talk.mp4", "deep/one", start=0.4, frames=25)
    made = make_animator(weights, {}, tmp_path, "cpu", 1)(job)
    path = tmp_path / "deep" / "one.mp4"
    footage = load_video(VideoFile("one.mp4", path), Selection())
    assert made.frames == len(footage.images) == 25
    assert footage.images.shape[1:3] == (64, 64) and probe(VideoFile("one.mp4", path)).rate == 25
    # The source's sound is a ramp, so that a delay shows: AAC's own would be 0.064 here.
    heard = load_video(VideoFile("talk.mp4", job.driving), Selection(start=0.4, frames=25)).audio.waveform
    assert 100 * float((footage.audio.waveform - heard)[0, 0, 2000:-2000].mean().abs()) < 0.02
    assert sorted(file.name for file in path.parent.iterdir()) == ["one.json", "one.mp4"]


def test_pasted_into_the_whole_portrait(weights, media, tmp_path):
    import cv2

    small = cv2.imread(str(PORTRAIT))
    wide = cv2.copyMakeBorder(small, 0, 0, 100, 101, cv2.BORDER_CONSTANT, value=(10, 200, 30))
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    networks = load_networks(weights, "cpu")
    job = Job(tmp_path / "wide.png", DRIVING, "one", frames=2, paste=True)
    frames = animate(networks, job, tmp_path)
    picture = torch.from_numpy(read_picture(VideoFile("wide.png", job.portrait))).float() / 255
    assert frames.shape == (2, *picture.shape)
    changed = (frames != picture).any(-1).any(0)  # (H, W)
    assert changed.any() and not changed[:, :60].any() and not changed[:, -60:].any()
    assert changed[picture.shape[0] // 2].float().mean() > 0.3


def test_generators_own_pictures(weights, tmp_path):
    """method vid2vid: of G's size, or in the portrait, moved by the driving video; without G it says what is missing."""
    networks = load_networks(weights, "cpu")
    job = Job(PORTRAIT, DRIVING, "one", method="vid2vid", frames=3)
    crops = animate(networks, job, tmp_path / "crops")
    assert crops.shape == (3, picture_size(networks.vid2vid), picture_size(networks.vid2vid), 3)
    whole = animate(networks, replace(job, paste=True), tmp_path / "whole")
    assert whole.shape == (3, 256, 256, 3) and not torch.equal(whole[0], whole[2])
    networks.vid2vid.generator = None
    with pytest.raises(WeightsError, match="generator"):
        animate(networks, job, tmp_path)


def test_liveportraits_way_stitches_where_it_can(weights, tmp_path):
    """The stitching file beside the others holds the shoulders, and another one makes the video anew."""
    torch.manual_seed(0)
    public.write_kijai(tmp_path, FaceVid2Vid(replace(public.TINY, crop_size=256)).eval())
    weights = replace(weights, vid2vid=tmp_path)
    networks, job = load_networks(weights, "cpu"), Job(PORTRAIT, DRIVING, "one", method="vid2vid", frames=2)
    stitched = animate(networks, job, tmp_path / "stitched")
    plain = animate(replace(networks, stitch=None), job, tmp_path / "plain")
    assert not torch.equal(stitched[1], plain[1]) and torch.equal(stitched, in_memory(networks, job))
    assert "vid2vid.stitching" in weights.marks()


def test_networks_that_do_not_belong_together(weights, tmp_path):
    other = replace(weights, vid2vid=tmp_path / "other.safetensors")
    save_vid2vid(other.vid2vid, FaceVid2Vid(Vid2VidConfig(**toy_sizes.VID2VID | dict(warped_channels=8))))
    with pytest.raises(InputError, match="8 channels and the transformer takes 6"):
        animate(load_networks(other, "cpu"), Job(PORTRAIT, DRIVING, "one", frames=1), tmp_path)


def test_odd_sizes_and_any_sound(tmp_path):
    frames = torch.rand(3, 33, 47, 3)
    sound = Audio(torch.rand(1, 2, 1000) - 0.5, 9999)  # AAC has no such rate
    write_video(tmp_path / "odd.mp4", frames, 30000 / 1001, sound)
    read = load_video(VideoFile("odd.mp4", tmp_path / "odd.mp4"), Selection())
    assert read.images.shape == (3, 32, 46, 3) and Fraction(read.fps).limit_denominator(1001) == Fraction(30000, 1001)
    assert read.audio.waveform.shape[1] == 2 and read.audio.rate == 48000
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be made"):
        write_video(tmp_path / "file" / "x.mp4", frames, 25)


def test_finished_means_whole_and_of_the_same_row_files_and_weights(weights, media, tmp_path):
    job, marks = Job(PORTRAIT, media / "talk.mp4", "one", frames=1), {"dit": "abc"}
    assert not is_finished(tmp_path, job, marks)
    make_animator(weights, marks, tmp_path, "cpu", 1)(job)
    assert is_finished(tmp_path, job, marks)
    assert not is_finished(tmp_path, replace(job, seed=1), marks)
    assert not is_finished(tmp_path, replace(job, driving=DRIVING), marks)
    assert not is_finished(tmp_path, job, {"dit": "abd"})
    video, record = tmp_path / "one.mp4", tmp_path / "one.json"
    whole = video.read_bytes()
    video.write_bytes(whole[:-1])
    assert not is_finished(tmp_path, job, marks)
    video.write_bytes(whole)
    record.write_text(record.read_text()[:-3])
    assert not is_finished(tmp_path, job, marks)


def test_a_file_that_changes_while_it_is_read_is_animated_again(weights, media, tmp_path, monkeypatch):
    portrait = tmp_path / "portrait.png"
    portrait.write_bytes(PORTRAIT.read_bytes())
    job = Job(portrait, media / "talk.mp4", "one", frames=1)

    def changed_meanwhile(*given):
        made = prepare(*given)
        os.utime(portrait, (0, 0))
        return made

    monkeypatch.setattr(worker, "prepare", changed_meanwhile)
    make_animator(weights, {}, tmp_path, "cpu", 1)(job)
    assert (tmp_path / "one.mp4").is_file() and not is_finished(tmp_path, job, {})


def in_a_process(weights: Weights, folder: Path, job: Job, event: int = 0) -> subprocess.CompletedProcess:
    """The job there, killed before its event-th renaming of a file."""
    job_row = (job.portrait, job.driving, job.out, job.method, job.seed, job.speed)
    arguments = (weights.dit.parent, weights.detector, folder, event, *job_row)
    return subprocess.run([sys.executable, batch_jobs.__file__, *map(str, arguments)], capture_output=True, text=True)


def test_a_killed_job_goes_on_from_its_last_clip(weights, tmp_path, monkeypatch):
    """kill -9 while the state after clip 1, of 0 and 1, is written. The clips of another row are not used."""
    job, whole, killed = Job(PORTRAIT, DRIVING, "one", speed="fast"), tmp_path / "whole", tmp_path / "killed"
    make_animator(weights, {}, whole, "cpu", 1)(job)
    assert in_a_process(weights, killed, job, event=1 + 3 + 2).returncode == -signal.SIGKILL
    clips = clips_folder(killed, job, ingredients(job, {}))
    assert clips == killed / ".one.run" and not (killed / "one.mp4").exists()
    kept = sorted(path.name for path in (clips / "clips").iterdir() if path.suffix != ".part")
    assert kept == ["00000.mp4", "00000.safetensors", "00001.mp4"]
    shutil.copytree(killed, tmp_path / "changed")
    assert [path.name for path in clips_folder(tmp_path / "changed", job, ingredients(job, {"dit": "b"})).iterdir()] == ["of.json"]
    made = []

    def recorded(*given, **named):
        made.append(Recorder(core_renderer(*given, **named)))
        return made[-1]

    monkeypatch.setattr(worker, "core_renderer", recorded)
    make_animator(weights, {}, killed, "cpu", 1)(job)
    assert [[clip.number for clip in recorder.clips] for recorder in made] == [[1]]
    assert sorted(path.name for path in killed.iterdir()) == ["one.json", "one.mp4"]
    for name in ("one.json", "one.mp4"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_clips_that_cannot_be_kept_are_a_sentence(tmp_path):
    job = Job(PORTRAIT, DRIVING, "file/one")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"file/.one.run cannot be written for the clips of its video"):
        clips_folder(tmp_path, job, {})


@pytest.mark.nightly
def test_memory_does_not_grow_with_the_driving_video(weights, media, tmp_path):
    """Fault 16: peaks of fresh processes for 20 and for 200 frames of 400x400 px, as a tensor 38 and 384 MB, within 5 %."""
    once = load_video(VideoFile("driving.mp4", DRIVING), Selection(frames=10)).images
    large = torch.nn.functional.interpolate(once.movedim(-1, 1), (400, 400)).movedim(1, -1)
    frames, peaks = (torch.cat([large, large.flip(0)]) * 255).byte().numpy(), []
    for times in (1, 10):
        driving = tmp_path / f"{times}.mp4"
        write(driving, [frame for _ in range(times) for frame in frames], fps=25)
        done = in_a_process(weights, tmp_path / f"out{times}", Job(PORTRAIT, driving, "one", "vid2vid"))
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads((tmp_path / f"out{times}" / "one.json").read_text())["video"]["frames"] == 20 * times
        peaks.append(max(map(float, done.stdout.split())))
    assert abs(peaks[1] - peaks[0]) < 0.05 * peaks[0], peaks


def test_marks_are_of_the_contents(weights, tmp_path):
    assert weights.marks() == weights.marks()
    other = tmp_path / "dit.safetensors"
    other.write_bytes(weights.dit.read_bytes() + b"x")
    changed = replace(weights, dit=other).marks()
    assert [name for name in changed if changed[name] != weights.marks()[name]] == ["dit"]


# Shares of a cluster


def test_shares_use_every_gpu_and_fit():
    big, small = {"CPU": 16.0, "GPU": 8.0}, {"CPU": 2.0}
    assert share_of([big, small]) == Share(1, 2) and room([big, small], Share(1, 2)) == 8
    assert share_of([big], gpus=0.5) == Share(0.5, 1) and room([big], Share(0.5, 1)) == 16
    assert share_of([small]) == Share(0, 2) and share_of([{"CPU": 64.0}]) == Share(0, pool.MOST_CPUS)
    assert room([big, small], Share(0, 2)) == 9
    assert Share(0.5, 1).device == "cuda" and Share(0, 1).device == "cpu"
    with pytest.raises(InputError, match="No node has room for an actor of 2 CPUs and 1 GPUs; they have 2 CPUs, 0 GPUs"):
        room([small], Share(1, 2))
    with pytest.raises(InputError, match="cannot be"):
        share_of([small], cpus=0)


def test_without_ray_the_command_says_what_to_install(weights, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = write_rows(tmp_path / "jobs.csv", [row(frames=1)])
    assert command.main([str(path), "--out", str(tmp_path / "out"), *options(weights)]) == 1
    assert "[batch]" in caplog.text


def test_a_speed_that_the_weights_do_not_have(weights, tmp_path, caplog):
    path = write_rows(tmp_path / "jobs.csv", [row(frames=1, speed="distilled")])
    assert command.main([str(path), "--out", str(tmp_path / "out"), *options(weights)]) == 1
    assert "one: speed is 'distilled', and these weights are not" in caplog.text


def options(weights: Weights) -> list[str]:
    return [item for name in ("vid2vid", "dit", "vae", "detector") for item in (f"--{name}", str(getattr(weights, name)))]


# On Ray


@pytest.fixture(scope="module")
def cluster():
    """The address of two nodes of one core each, both on this machine."""
    pytest.importorskip("ray", reason="Ray is not installed here")
    with pytest.MonkeyPatch.context() as patch:
        # No telemetry; no token in the user's home; no lower priority than what else runs on this machine.
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        from ray.cluster_utils import Cluster

        node = dict(num_cpus=1, num_gpus=0, object_store_memory=80 << 20, include_dashboard=False)
        running = Cluster(initialize_head=True, head_node_args=node)
        try:
            running.add_node(**node)
            running.wait_for_nodes()
            yield running.address
        finally:
            running.shutdown()


class Killer(logging.Handler):
    """Kills the process that is given a certain job, the first time, a moment later; `given` are all jobs in their order."""

    def __init__(self, victim: str, times: int = 1):
        super().__init__(logging.DEBUG)
        self.victim, self.times, self.given = victim, times, []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno != logging.DEBUG:
            return
        process, job = record.args
        self.given.append(str(job))
        if str(job) == self.victim and self.times:
            self.times -= 1
            threading.Timer(0.3, os.kill, (int(process.split()[1]), signal.SIGKILL)).start()


@pytest.fixture
def killer():
    added = []

    def add(victim: str, times: int = 1) -> Killer:
        handler = Killer(victim, times)
        pool.log.addHandler(handler)
        pool.log.setLevel(logging.DEBUG)
        added.append(handler)
        return handler

    yield add
    for handler in added:
        pool.log.removeHandler(handler)
    pool.log.setLevel(logging.NOTSET)


@pytest.mark.slow
def test_a_killed_process_costs_no_job_and_none_is_made_twice(cluster, weights, media, tmp_path, killer, caplog):
    """The command on a cluster of two nodes; the results are those of a run without Ray, bit by bit."""
    jobs = [row(driving=str(media / "talk.mp4"), out="long")]
    jobs += [row(out=f"n{i}", seed=i, frames=3) for i in range(4)]
    jobs += [row(portrait=str(media / "wall.png"), out="faceless", frames=2)]
    path, out = write_rows(tmp_path / "jobs.csv", jobs), tmp_path / "out"
    arguments = [str(path), "--out", str(out), "--address", cluster, "--cpus-per-worker", "1", *options(weights)]
    watched = killer("long")
    assert command.main(arguments) == 1  # one has no face
    assert sorted(watched.given) == sorted([job["out"] for job in jobs] + ["long"])
    with (out / FAILED).open(newline="") as file:
        (failure,) = csv.DictReader(file)
    assert failure["out"] == "faceless" and "No face was found in the portrait" in failure["error"]

    threads = torch.get_num_threads()
    make = make_animator(weights, weights.marks(), tmp_path / "plain", "cpu", 1)
    done = [job for job in read_jobs(path) if job.out != "faceless"]
    for job in done:
        make(job)
        assert (out / f"{job.out}.mp4").read_bytes() == (tmp_path / "plain" / f"{job.out}.mp4").read_bytes(), job.out
    torch.set_num_threads(threads)
    assert len({(out / f"{job.out}.mp4").read_bytes() for job in done}) == len(done)
    record = json.loads((out / "long.json").read_text())
    assert record["video"] == {"bytes": (out / "long.mp4").stat().st_size, "frames": FRAMES, "fps": 25.0}

    # Again, with a row mended, one changed and one video lost: these three and no others.
    watched.given.clear()
    jobs[-1]["portrait"], jobs[1]["seed"] = str(PORTRAIT), 9
    (out / "n2.mp4").unlink()
    write_rows(path, jobs)
    caplog.clear()
    caplog.set_level(logging.INFO)
    assert command.main(arguments) == 0
    assert sorted(watched.given) == ["faceless", "n0", "n2"] and "3 made, 3 finished before, 0 failed" in caplog.text
    assert not (out / FAILED).exists()
    watched.given.clear()
    assert command.main(arguments) == 0 and watched.given == []


@pytest.mark.slow
def test_samples_prepared_on_actors_are_those_prepared_here(cluster, tmp_path, killer):
    """`train.data --ray`, with a process killed: files, bits and report of a run without Ray; then nothing is left to do."""
    from safetensors.torch import load_file

    from realportrait_core.train.data import __main__ as preparing

    sources = tmp_path / "mine"
    sources.mkdir()
    for name, file in {"a.mp4": DRIVING, "b.png": PORTRAIT, "copy of b.png": PORTRAIT}.items():
        (sources / name).write_bytes(file.read_bytes())
    (sources / "text.mp4").write_text("no video")
    bundled = command.BUNDLED
    files = [
        bundled / "realportrait" / "realportrait_mini_vid2vid.safetensors",
        bundled / "vae" / "realportrait_mini_vae.safetensors",
    ]
    common = ["--weights", str(files[0]), "--vae", str(files[1]), "--detector", str(yunet.onnx()), "--device", "cpu"]

    here, there = tmp_path / "here", tmp_path / "there"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert preparing.main([str(sources), "--out", str(here), *common]) == 0
    torch.set_num_threads(threads)
    watched = killer("mine/a.mp4")
    spread = [str(sources), "--out", str(there), *common, "--ray", cluster, "--cpus-per-worker", "1"]
    assert preparing.main(spread) == 0
    assert watched.times == 0 and sorted(watched.given) == ["mine/a.mp4", "mine/a.mp4", "mine/b.png", "mine/text.mp4"]

    names = sorted(path.name for path in here.iterdir())
    found = sorted(path.name for path in there.iterdir() if not path.name.startswith("."))  # what the killed one was writing
    assert names == found and sum(name.endswith(".safetensors") for name in names) >= 2
    assert (here / "report.json").read_bytes() == (there / "report.json").read_bytes()
    for name in names:
        if name.endswith(".safetensors"):
            one, other = load_file(here / name), load_file(there / name)
            assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
    watched.given.clear()
    assert preparing.main(spread) == 0 and watched.given == []


@pytest.mark.slow
def test_a_job_that_kills_every_process_is_given_up_and_the_others_are_done(cluster, killer):
    import ray

    watched = killer("13", times=pool.TRIES)
    taken = []

    def numbers():
        for job in (1, 13, 2, -3, 4, 5):
            taken.append(job)
            yield job

    with pool.connected(cluster):
        done = {}
        for finished in run_jobs(doubler, numbers(), Share(0, 1), 2):
            done[finished.job] = finished
            assert len(taken) <= len(done) + 2 + 1  # as far as there are actors
        assert {job: found.result for job, found in done.items()} == {1: 2, 13: None, 2: 4, -3: None, 4: 8, 5: 10}
        assert isinstance(done[13].error, WorkerDied) and watched.given.count("13") == pool.TRIES
        assert isinstance(done[-3].error, InputError) and str(done[-3].error) == "-3 is negative"
        # Three actors where two have room: the third delays nothing. Nothing to do: nothing starts.
        assert sorted(d.result for d in run_jobs(doubler, range(1, 5), Share(0, 1), 3)) == [2, 4, 6, 8]
        assert list(run_jobs(doubler, [], Share(0, 1), 2)) == []
        with pytest.raises(InputError, match="no such weights"):
            list(run_jobs(breaker, [1, 2], Share(0, 1), 2))
        assert ray.is_initialized()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_no_cluster_at_an_address(cluster, weights, tmp_path, caplog):
    path = write_rows(tmp_path / "jobs.csv", [row(frames=1)])
    assert command.main([str(path), "--out", str(tmp_path / "out"), "--address", "127.0.0.1:1", *options(weights)]) == 1
    assert "no Ray cluster at 127.0.0.1:1" in caplog.text

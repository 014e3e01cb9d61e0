"""The API workflows on the real server: from a picture and a video to an mp4."""

import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import public
import pytest
import torch
from PIL import Image

from realportrait_core.config import PAPER
from realportrait_core.vid2vid import FaceVid2Vid

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS, ASSETS = ROOT / "workflows" / "api", ROOT / "assets"
SIMPLE = "animate_portrait_simple"


@pytest.fixture
def run(client, workflow, tmp_path):
    """Run a workflow to its end and open the video: run(name, change, ...) -> (Run, the API workflow, path of the mp4)."""

    def to_video(name="animate_portrait", change=None, **settings):
        queued = workflow(name, **settings)
        if change:
            change(queued)
        done = client.queue(queued)
        assert done.status == "success", f"{queued.get(done.error_node, {}).get('class_type')}: {done.error}"
        videos = [entry for entry in done.files() if entry["filename"].endswith(".mp4")]
        assert len(videos) == 1
        path = tmp_path / "video.mp4"
        path.write_bytes(client.download(videos[0]))
        return done, queued, path

    return to_video


def node_of(queued: dict, class_type: str) -> str:
    return next(node for node, entry in queued.items() if entry["class_type"] == class_type)


def steps_reported(done, node: str) -> list[tuple[int, int]]:
    return [(event.data["value"], event.data["max"]) for event in done.of("progress") if event.data["node"] == node]


def jpeg_sizes(done) -> list[tuple[int, int]]:
    return [Image.open(io.BytesIO(event.data["image"])).size for event in done.of("preview")]


def probe(path) -> dict:
    import av

    with av.open(str(path)) as video:
        picture = video.streams.video[0]
        found = {
            "codec": picture.codec.name,
            "size": (picture.width, picture.height),
            "fps": picture.average_rate,
            "frames": sum(1 for _ in video.decode(picture)),
        }
    with av.open(str(path)) as video:
        found["sound"] = sum(frame.samples / frame.sample_rate for frame in video.decode(audio=0)) if video.streams.audio else 0.0
    return found


def test_two_clips_with_our_sampler(run):
    """Of the bundled weights, as the quick start has them."""
    done, queued, path = run(frames=18, weights="realportrait_mini.safetensors")
    assert probe(path) == {"codec": "h264", "size": (256, 256), "fps": Fraction(25, 2), "frames": 18, "sound": 0.0}
    reported = steps_reported(done, node_of(queued, "RealPortraitSampler"))
    assert reported == sorted(reported)
    assert reported[-1] == (8, 8), "two clips of the bundled weights' four steps"
    assert len(jpeg_sizes(done)) >= 4


def test_a_run_leaves_nothing_but_its_results(run, server):
    """What uninstalling has to remove is the pack's folder and models/realportrait: no cache, no configuration, no log of ours."""

    def files() -> dict:
        # The pack's own folder is a link here, which rglob does not follow.
        return {file: file.stat().st_mtime_ns for file in server.folder.rglob("*") if file.is_file()}

    before = files()
    run(frames=3, steps=1, seed=7)
    changed = {file.relative_to(server.folder).parts[0] for file, when in files().items() if before.get(file) != when}
    assert "output" in changed and changed <= {"output", "temp", "input", "user", "server.log"}


def test_extraction_reports_progress_over_frames(run):
    done, queued, _ = run(frames=5, steps=1, seed=2)
    for class_type in ("RealPortraitExtractKeypoints", "RealPortraitMotionMaps"):
        assert steps_reported(done, node_of(queued, class_type))[-1] == (5, 5)


def test_two_nodes_show_a_picture_themselves(client, workflow):
    """One each, told to the page when the node has run; out of the cache nothing is made again, and the picture is still there."""
    import thumbnails

    queued = thumbnails.only_for(workflow(frames=3), "PreviewImage")
    nodes = [node_of(queued, kind) for kind in ("RealPortraitExtractKeypoints", "RealPortraitMotionMaps")]
    client.forget()
    done, again = client.queue(queued), client.queue(queued)
    assert done.status == again.status == "success"
    for node in nodes:
        (told,) = [event.data["output"]["images"] for event in done.of("executed") if event.data["node"] == node]
        (shown,) = told
        assert shown["type"] == "temp" and done.outputs[node]["images"] == told
        picture = np.asarray(Image.open(io.BytesIO(client.download(shown))))
        assert picture.ndim == 3 and picture.std((0, 1)).min() > 10
        assert done.seconds(node) > 0 == again.seconds(node)


def test_stock_ksampler(run):
    done, queued, path = run("animate_portrait_ksampler", frames=5, steps=3)
    assert not any(entry["class_type"] == "RealPortraitSampler" for entry in queued.values())
    found = probe(path)
    assert (found["codec"], found["frames"], found["fps"]) == ("h264", 5, Fraction(25, 2))
    assert steps_reported(done, node_of(queued, "KSampler"))[-1] == (3, 3)
    assert len(jpeg_sizes(done)) >= 3


def test_stock_ksampler_and_continue_clip(run):
    """Two clips: the second starts with the last latent of the first."""
    _, queued, path = run("animate_portrait_continued", frames=18, steps=1)
    assert sum(entry["class_type"] == "KSampler" for entry in queued.values()) == 2
    assert probe(path)["frames"] == 18


def frames_of(path) -> np.ndarray:
    import av

    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def test_one_node_makes_the_video(run):
    """With rate and sound of its driving video; bars, previews and pictures of the nodes inside are at it."""
    done, queued, path = run(SIMPLE, driving="with_sound.mp4")
    found = probe(path)
    assert (found["codec"], found["size"], found["fps"], found["frames"]) == ("h264", (256, 256), Fraction(25, 2), 5)
    assert found["sound"] == pytest.approx(5 / 12.5, abs=0.15)
    node = node_of(queued, "RealPortraitAnimate")
    ran = [event.data for event in done.of("executing") if event.data.get("node")]
    inside = [data["node"] for data in ran if data["display_node"] == node != data["node"]]
    assert len(inside) == 10 and {data["display_node"] for data in ran} <= set(queued)
    (sampler,) = [name for name in inside if name.endswith("sampler")]
    assert steps_reported(done, sampler)[-1] == (10, 10) and len(jpeg_sizes(done)) >= 10
    shown = [
        event.data for event in done.of("executed") if event.data["display_node"] == node and event.data["output"].get("images")
    ]
    assert len(shown) == 2


def test_one_node_without_the_transformer(run):
    """Face Vid2vid alone, with the bundled weights: the same frames as the workflow animate_liveportrait makes."""
    _, _, path = run("animate_liveportrait", frames=3)
    graph = frames_of(path)
    _, _, path = run(SIMPLE, frames=3, weights="(Face Vid2vid alone)")
    np.testing.assert_array_equal(graph, frames_of(path))


def test_one_node_is_the_graph_of_the_others(run, client, workflow, tmp_path):
    """Frame by frame; and another seed only samples anew."""
    _, queued, path = run(SIMPLE, frames=3, seed=5)
    one = frames_of(path)
    graph = workflow("animate_portrait", frames=3, steps=0, seed=5)
    graph[node_of(graph, "RealPortraitMotionMaps")]["inputs"]["neutral_frame"] = -1
    done = client.queue(graph)
    assert done.status == "success", done.error
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(client.download(next(entry for entry in done.files() if entry["filename"].endswith(".mp4"))))
    np.testing.assert_array_equal(one, frames_of(whole))
    client.queue(queued)
    queued[node_of(queued, "RealPortraitAnimate")]["inputs"]["seed"] = 6
    again = client.queue(queued)
    inside = {event.data["node"].rpartition(".")[2] for event in again.of("executing") if "." in (event.data.get("node") or "")}
    assert again.status == "success" and inside == {"sampler", "decode", "paste", "video"}


def test_face_vid2vid_alone_with_the_bundled_weights(run):
    """At once, as delivered: the portrait at its own size, an even one."""
    done, queued, path = run("animate_liveportrait", portrait="odd_rgba.png", frames=3)
    assert probe(path) == {"codec": "h264", "size": (300, 252), "fps": Fraction(25, 2), "frames": 3, "sound": 0.0}
    assert steps_reported(done, node_of(queued, "RealPortraitRenderVid2Vid"))[-1] == (3, 3)
    (shown,) = done.outputs[node_of(queued, "RealPortraitRenderVid2Vid")]["images"]
    assert shown["type"] == "temp"


@pytest.mark.parametrize(
    "config, frames", [(replace(public.TINY, crop_size=256), None), pytest.param(PAPER.vid2vid, 2, marks=pytest.mark.slow)]
)
def test_face_vid2vid_alone_with_the_public_files(client, server, workflow, run, config, frames):
    """Random weights in five files as people have them, at toy width and at full size, where a frame takes seconds; nothing else is
    changed. The video is as long as its driving video, of which so many frames are loaded, and has its sound.
    """
    folder = server.folder / "models" / "realportrait" / "public"
    torch.manual_seed(0)
    public.write_kijai(folder, FaceVid2Vid(config).eval())
    try:
        weights = "public/appearance_feature_extractor.safetensors"
        _, _, path = run("animate_liveportrait", driving="with_sound.mp4", frames=frames, vid2vid=weights)
    finally:
        shutil.rmtree(folder)
        client.forget()
    found, wanted = probe(path), frames or 5
    assert (found["size"], found["fps"], found["frames"]) == ((256, 256), Fraction(25, 2), wanted)
    assert found["sound"] == pytest.approx(wanted / 12.5, abs=0.1)


def test_the_papers_workflow(run):
    """All 28 + 13 blocks of PAPER, at toy width, in 50 steps of IDDPM."""
    done, queued, path = run("animate_portrait_paper", frames=3)
    assert probe(path) == {"codec": "h264", "size": (64, 64), "fps": Fraction(25, 2), "frames": 3, "sound": 0.0}
    assert steps_reported(done, node_of(queued, "SamplerCustomAdvanced"))[-1] == (50, 50)


def test_a_saved_motion_is_found_where_it_was_saved(client, workflow, run):
    """The row that saves is run, its file is on the other node's menu, and that row gives it back at its rate."""
    import thumbnails

    saved = client.queue(thumbnails.only_for(workflow("animate_saved_motion", frames=4), "RealPortraitSaveMotion"))
    assert saved.status == "success", saved.error
    offered = client.get("/object_info/RealPortraitLoadMotion")["RealPortraitLoadMotion"]["input"]["required"]["file"]
    found = [name for name in offered[1]["options"] if name.endswith(" [output]")]
    assert found == ["motion/RealPortrait_00001_.safetensors [output]"]

    def load_it(queued):
        queued[node_of(queued, "RealPortraitLoadMotion")]["inputs"]["file"] = found[0]

    done, queued, path = run("animate_saved_motion", load_it, frames=2, steps=1)  # as long as the file, not as this driving video
    found = probe(path)
    assert (found["frames"], found["fps"], found["sound"]) == (4, Fraction(25, 2), 0.0)
    assert "4 frames of" in str([done.outputs[node] for node, entry in queued.items() if entry["class_type"] == "PreviewAny"])


def test_comparison_side_by_side_and_stage_by_stage(run):
    """Three squares of 256 px with 4 px between them; a sheet for each frame, and the drift in words."""
    done, queued, path = run("compare_and_evaluate", frames=3, steps=1)
    found = probe(path)
    assert (found["frames"], found["size"]) == (3, (3 * 256 + 2 * 4, 256))
    assert len(done.outputs[node_of(queued, "PreviewImage")]["images"]) == 3
    told = str(done.outputs[node_of(queued, "PreviewAny")])
    assert "3 of 3 driving frames" in told and "keypoints px" in told


def test_the_demos_result_in_figures(client, server, workflow):
    """Of the bundled weights, against portrait and driving video; what is missing is said, and comes with its file."""
    import judges
    import thumbnails

    queued = workflow("compare_and_evaluate", frames=4, weights="realportrait_mini.safetensors")
    titles = {entry["_meta"]["title"]: node for node, entry in queued.items()}
    queued = {node: queued[node] for node in thumbnails.only_for(queued, "PreviewAny")}
    judge, figures = titles["Judge Animation"], titles["Figures"]
    queued["strip"] = {"class_type": "PreviewImage", "inputs": {"images": [judge, 1]}}
    done = client.queue(queued)
    assert done.status == "success", done.error
    told = str(done.outputs[figures])
    assert "With a face: portrait 1 of 1, driving video 4 of 4, result 4 of 4." in told and "| head pose error, relative" in told
    assert "Left out, identity similarity: put ArcFace or SFace" in told and "face_landmarker.task" in told
    (shown,) = done.outputs["strip"]["images"]
    assert Image.open(io.BytesIO(client.download(shown))).size == (5 * 320, 2 * 344)
    reported = steps_reported(done, judge)
    assert reported == sorted(reported) and reported[-1] == (20, 20)

    folder = server.folder / "models" / "realportrait" / "judges"
    folder.mkdir()
    try:
        (folder / "face-api").symlink_to(judges.face_api())
        again = client.queue(queued)
        assert again.status == "success" and "identity similarity ↑ (face-api)" in str(again.outputs[figures])
        assert {event.data["node"] for event in again.of("executing")} & set(queued) == {judge, figures, "strip"}
    finally:
        shutil.rmtree(folder)


def test_a_portrait_video_takes_the_driving_videos_lips_and_sound(client, media, tmp_path):
    """As many frames as the shorter, the driving one, has."""
    queued = json.loads((WORKFLOWS / "portrait_video.json").read_text(encoding="utf-8"))
    loads = [entry["inputs"] for entry in queued.values() if entry["class_type"] == "RealPortraitLoadDrivingVideo"]
    for inputs, name in zip(loads, ("driving.mp4", "with_sound.mp4"), strict=True):
        inputs.update(file=media[name], start=0.0)
    done = client.queue(queued)
    assert done.status == "success", done.error
    path = tmp_path / "video.mp4"
    path.write_bytes(client.download(done.files()[0]))
    found = probe(path)
    assert (found["size"], found["fps"], found["frames"]) == ((256, 256), Fraction(25, 2), 5)
    assert found["sound"] == pytest.approx(5 / 12.5, abs=0.15)
    assert "Animated are 5 frames" in str(done.outputs[node_of(queued, "PreviewAny")])


def test_an_expression_is_saved_and_rendered(client):
    """The portrait with the edited face, and what the transformer makes of the same motion."""
    queued = json.loads((WORKFLOWS / "expression_sliders.json").read_text(encoding="utf-8"))
    queued[node_of(queued, "RealPortraitLoadModel")]["inputs"]["weights"] = "small.safetensors"
    queued[node_of(queued, "RealPortraitSampler")]["inputs"]["steps"] = 1
    done = client.queue(queued)
    assert done.status == "success", done.error
    (saved,) = done.files()
    assert Image.open(io.BytesIO(client.download(saved))).size == Image.open(ASSETS / "portrait.png").size
    assert len(done.outputs[node_of(queued, "PreviewImage")]["images"]) == 1
    assert "yaw +12" in str(done.outputs[node_of(queued, "PreviewAny")])


def test_sound_is_kept_as_long_as_the_picture(run):
    _, _, path = run(driving="with_sound.mp4", steps=1)
    found = probe(path)
    assert found["frames"] == 5
    assert found["sound"] == pytest.approx(5 / 12.5, abs=0.15)  # whole AAC packets


@pytest.mark.parametrize(
    "portrait, driving, frames",
    [
        ("odd_rgba.png", "driving.mp4", 2),
        ("grey.png", "odd_size.mp4", 3),
        ("portrait.png", "one_frame.mp4", 1),
        ("portrait.png", "face_lost.mp4", 5),
    ],
)
def test_unusual_input_that_works(run, portrait, driving, frames):
    _, _, path = run(portrait=portrait, driving=driving, frames=None if driving != "driving.mp4" else frames, steps=1)
    assert probe(path)["frames"] == frames


def test_every_node_explains_itself(client):
    ours = {name: node for name, node in client.get("/object_info").items() if name.startswith("RealPortrait")}
    assert {
        "RealPortraitLoadModel",
        "RealPortraitLoadVid2Vid",
        "RealPortraitExtractKeypoints",
        "RealPortraitMotionMaps",
        "RealPortraitConditioning",
        "RealPortraitSampler",
        "RealPortraitContinueClip",
        "RealPortraitEditMotion",
        "RealPortraitSaveMotion",
        "RealPortraitLoadMotion",
        "RealPortraitLoadDrivingVideo",
        "RealPortraitPasteBack",
        "RealPortraitInspect",
    } <= ours.keys()
    for name, node in ours.items():
        assert node["category"] == "RealPortrait", name
        assert node["description"], name
        for group in ("required", "optional"):  # hidden ones are the host's own
            for given, (_, options) in node["input"].get(group, {}).items():
                assert options.get("tooltip"), f"{name}.{given}"
        assert all(node["output_tooltips"]), name


def test_the_bundled_vae_is_in_the_stock_loader(client):
    inputs = client.get("/object_info/VAELoader")["VAELoader"]["input"]["required"]
    assert "realportrait_mini_vae.safetensors" in inputs["vae_name"][0]


def test_the_workflows_are_offered_as_templates(client):
    offered = client.get("/api/workflow_templates")["realportrait"]
    assert set(offered) == {path.stem for path in WORKFLOWS.glob("*.json")} >= {"animate_portrait", "expression_sliders"}
    for name in offered:
        assert client.get(f"/api/workflow_templates/realportrait/{name}.json")["nodes"]


def test_the_subgraph_is_offered(client):
    """To the node library, under the name of its file."""
    file = ROOT / "subgraphs" / "Animate Portrait (Subgraph).json"
    offered = {entry["name"]: key for key, entry in client.get("/global_subgraphs").items()}
    served = client.get(f"/global_subgraphs/{offered[file.stem]}")
    assert json.loads(served["data"]) == json.loads(file.read_text(encoding="utf-8"))


def test_what_has_not_changed_is_not_made_again(client, workflow):
    """The host's cache: another name of the file saves the same frames without sampling; another seed samples only."""
    wanted = workflow(frames=4, steps=2, seed=31)
    kinds = "RealPortraitSampler", "RealPortraitExtractKeypoints", "SaveVideo"
    sampler, keypoints, video = (node_of(wanted, kind) for kind in kinds)
    client.forget()
    first = client.queue(wanted)
    assert first.status == "success" and min(first.seconds(sampler), first.seconds(keypoints)) > 0
    wanted[video]["inputs"]["filename_prefix"] = "cached"
    again = client.queue(wanted)
    assert again.status == "success" and again.files() and again.seconds(sampler) == again.seconds(keypoints) == 0
    wanted[sampler]["inputs"]["seed"] += 1
    reseeded = client.queue(wanted)
    assert reseeded.status == "success" and reseeded.seconds(sampler) > 0 == reseeded.seconds(keypoints)


def test_two_prompts_queued_at_once(client, workflow, run, tmp_path):
    """Both end, one after the other, and each is what it is alone."""
    import av

    def picture(path) -> bytes:
        with av.open(str(path)) as video:
            return b"".join(frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0))

    seeds = (41, 42)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda seed: client.queue(workflow(frames=4, steps=2, seed=seed)), seeds))
    assert [done.status for done in both] == ["success", "success"]
    together = []
    for done in both:
        path = tmp_path / "together.mp4"
        path.write_bytes(client.download(next(entry for entry in done.files() if entry["filename"].endswith(".mp4"))))
        together.append(picture(path))
    client.forget()
    alone = [picture(run(frames=4, steps=2, seed=seed)[2]) for seed in seeds]
    assert together == alone and together[0] != together[1]

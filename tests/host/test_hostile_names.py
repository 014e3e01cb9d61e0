"""Names that lead out of the models', input and output folders, in every widget that names a file, for reading and for writing."""

import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch
from refusal import refused

# In place of NAME stands a file outside that the loader would take; each of these leads to it, or tries to.
WAYS_OUT = {
    "up": "../NAME",
    "up from below": "below/../../NAME",
    "backslashes": "..\\NAME",
    "absolute": "/OUTSIDE/NAME",
    "drive": "C:\\NAME",
    "link": "link.SUFFIX",
    "folder behind a link": "linked/NAME",
    "NUL": "../NAME\0",
    "NUL inside": "in\0side.SUFFIX",
    "a device": "CON",
    "a device with a suffix": "nul.SUFFIX",
    "very long": "x" * 300 + ".SUFFIX",
    "longer than a path": "x/" * 3000 + "NAME",
    "fullwidth dots": "．．/NAME",
    "a slash that is none": "..∕NAME",
    "decomposed": "e\u0301/../../NAME",
    "turned around": "\u202egnp.NAME",
    "half a character": "\ud800.SUFFIX",
    "a folder": "below",
    "nothing": "",
    "dots": "..",
    "the annotation of another folder": "../NAME [output]",
    "a home": "~/NAME",
    "a variable": "$HOME/NAME",
    "an address": "file:///OUTSIDE/NAME",
}
LOADERS = {  # node -> (widget, suffix, folder)
    "RealPortraitLoadModel": ("weights", "safetensors", "models"),
    "RealPortraitLoadVid2Vid": ("weights", "safetensors", "models"),
    "RealPortraitLoadStitching": ("weights", "safetensors", "models"),
    "RealPortraitLoadMotion": ("file", "safetensors", "input"),
    "RealPortraitLoadPortrait": ("image", "png", "input"),
    "RealPortraitLoadDrivingVideo": ("file", "mp4", "input"),
}


@pytest.fixture(scope="module")
def outside(host, pack, tmp_path_factory) -> Path:
    """A folder with a file for each loader, all of which it could open; input and models have links to it."""
    import folder_paths

    root = Path(__file__).resolve().parents[2]
    folder = Path(folder_paths.get_input_directory()).parent
    for place in ("input", "output", "models/realportrait", "models"):
        (folder / place / "below").mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "assets" / "motion.safetensors", folder / "RealPortraitLoadMotion.safetensors")
    shutil.copy(root / "assets" / "portrait.png", folder / "RealPortraitLoadPortrait.png")
    shutil.copy(root / "assets" / "driving.mp4", folder / "RealPortraitLoadDrivingVideo.mp4")
    tiny.dit_file(pack, folder / "RealPortraitLoadModel.safetensors")
    tiny.vid2vid_file(pack, folder / "RealPortraitLoadVid2Vid.safetensors")
    tiny.vid2vid_file(pack, folder / "RealPortraitLoadStitching.safetensors")
    return folder


def link(at: Path, target: Path) -> None:
    at.unlink(missing_ok=True)
    at.symlink_to(target)


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("node_id", LOADERS)
def test_no_name_opens_a_file_outside(host, pack, outside, node_id, way):
    widget, suffix, place = LOADERS[node_id]
    target = outside / f"{node_id}.{suffix}"
    assert target.is_file()
    if "link" in way and place == "models":
        pytest.skip("links below models are the owner's way to keep weights elsewhere; the host follows them")
    if "link" in way and sys.platform == "win32":
        pytest.skip("links need rights on Windows")
    if way == "link":
        link(outside / place / f"link.{suffix}", target)
        assert (outside / place / f"link.{suffix}").read_bytes() == target.read_bytes()
    if way == "folder behind a link":
        link(outside / place / "linked", outside)
        assert (outside / place / "linked" / target.name).is_file()
    name = WAYS_OUT[way].replace("NAME", target.name).replace("SUFFIX", suffix).replace("/OUTSIDE", str(outside))
    node = host.NODE_CLASS_MAPPINGS[node_id]
    said = node.validate_inputs(**{widget: name})
    try:
        assert isinstance(said, str) and 10 < len(said) < 3000
        errors = pack("realportrait_core.errors").RealPortraitError
        given = {widget: name, "weight_dtype": "default"} if node_id == "RealPortraitLoadModel" else {widget: name}
        if node_id == "RealPortraitLoadMotion":
            given |= {"vid2vid": None, "portrait": torch.zeros(1, 64, 64, 3), "portrait_face": "largest"}
        if node_id == "RealPortraitLoadDrivingVideo":
            given |= {"start": 0.0, "start_in": "seconds", "frames": 1, "stride": 1, "fps": 0.0, "longest_side": 0}
        with pytest.raises(errors):
            node.execute(**given)
    finally:
        for left in (outside / place / f"link.{suffix}", outside / place / "linked"):
            left.unlink(missing_ok=True)


def test_a_link_of_the_whole_folder_is_followed(host, pack, outside, monkeypatch, tmp_path):
    """Users keep the input and output folders on another disk."""
    import folder_paths

    (tmp_path / "real").mkdir()
    (tmp_path / "input").symlink_to(tmp_path / "real")
    shutil.copy(outside / "RealPortraitLoadPortrait.png", tmp_path / "real" / "mine.png")
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    assert pack("nodes.host.media").picture_path("mine.png") == tmp_path / "input" / "mine.png"


# ---- writing ----

PREFIXES = {
    "up": "../escaped",
    "up from below": "a/../../escaped",
    "absolute": "/tmp/escaped",
    "behind a link": "linked/escaped",
    "below a link": "linked/deeper/escaped",
    "NUL": "a\0b",
    "a line": "a\nb",
    "turned around": "\u202egnp",
    "half a character": "\ud800",
    "a device": "CON/motion",
    "a device with a suffix": "nul.tar/motion",
    "a device as name": "lpt1",
    "a device behind a backslash": "a\\Aux\\b",
    "very long": "x" * 300,
    "very long folder": "x" * 300 + "/motion",
    "longer than a path": "x/" * 3000 + "motion",
    "a number": 7,
    "a list": ["motion"],
}


@pytest.fixture(scope="module")
def keypoints(host, pack):
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(parents=True, exist_ok=True)
    tiny.vid2vid_file(pack, folder / "names.safetensors")
    with torch.inference_mode():
        vid2vid = host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"].execute(weights="names.safetensors").result[0]
        given = dict(vid2vid=vid2vid, portrait=torch.rand(1, 160, 150, 3), driver=torch.rand(2, 120, 110, 3), **tiny.EXTRACTION)
        return host.NODE_CLASS_MAPPINGS["RealPortraitExtractKeypoints"].execute(**given).result[0]


@pytest.mark.parametrize("way", PREFIXES)
def test_no_prefix_writes_outside_or_what_cannot_be_named(pack, run_node, keypoints, tmp_path, way):
    import folder_paths

    output = Path(folder_paths.get_output_directory())
    before = {path for path in output.parent.rglob("*") if "escaped" in path.name}
    if "link" in way:
        link(output / "linked", tmp_path)
        (output / "linked" / "shown").touch()
        assert (tmp_path / "shown").exists()  # what is written there is outside
        (tmp_path / "shown").unlink()
    with refused(pack, "cannot begin the name of a file|was not saved"):
        run_node("RealPortraitSaveMotion", keypoints=keypoints, fps=25.0, filename_prefix=PREFIXES[way])
    assert {path for path in output.parent.rglob("*") if "escaped" in path.name} == before and not list(tmp_path.iterdir())
    assert not list(output.rglob("*.part"))
    (output / "linked").unlink(missing_ok=True)


@pytest.mark.parametrize("prefix", ["ünïcode/gesicht 1", "e\u0301", "a.b.c/d", "console", "comet1", "com10/x"])
def test_other_names_are_written(run_node, keypoints, prefix):
    import folder_paths

    (name,) = run_node("RealPortraitSaveMotion", keypoints=keypoints, fps=25.0, filename_prefix=prefix)
    assert (Path(folder_paths.get_output_directory()) / name).is_file()

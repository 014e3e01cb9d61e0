"""A model file that is not there: the error names the folders searched, and the size and licence of what is missing."""

from pathlib import Path

import pytest
from refusal import refused

LOADERS = {
    "RealPortraitLoadModel": ("realportrait_mini.safetensors", "Apache-2.0"),
    "RealPortraitLoadVid2Vid": ("realportrait_mini_vid2vid.safetensors", "Apache-2.0"),
}


@pytest.mark.parametrize("node", LOADERS)
def test_a_missing_file_is_told_with_folders_size_and_licence(host, pack, run_node, node):
    import folder_paths

    file, licence = LOADERS[node]
    size = (pack("nodes.host.folders").WEIGHTS / "realportrait" / file).stat().st_size
    dtype = {"weight_dtype": "default"}
    said = host.NODE_CLASS_MAPPINGS[node].validate_inputs(weights="mine.safetensors")
    with refused(pack, "'mine.safetensors' is not one of the", kind="WeightsError") as caught:
        run_node(node, weights="mine.safetensors", **dtype)
    assert said == str(caught.value)
    assert all(folder in said for folder in folder_paths.get_folder_paths("realportrait"))
    assert f"{file} ({round(size / 1e6)} MB, {licence}) comes with the pack" in said and said.endswith(".")


def test_all_of_a_kind_missing(pack, monkeypatch):
    """The pack's own weights were deleted, and nothing else was ever put there."""
    folders = pack("nodes.host.folders")
    monkeypatch.setattr(folders.folder_paths, "get_filename_list", lambda key: [])
    for path, licence in (
        (folders.model_path, "Apache-2.0"),
        (folders.vid2vid_path, r"MIT\) are in Kijai"),
        (folders.stitching_path, "MIT licence"),
    ):
        with refused(pack, rf"^No .* weights found\. Put a \.safetensors file in one of: /.* MB.*{licence}", kind="WeightsError"):
            path("any.safetensors")


def test_a_file_that_goes_away_between_menu_and_run(host, pack, run_node, tmp_path):
    """The menu was made while the file was there."""
    import folder_paths

    folders = pack("nodes.host.folders")
    file = Path(folder_paths.models_dir) / "realportrait" / "fleeting.safetensors"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((folders.WEIGHTS / "realportrait" / folders.BUNDLED_VID2VID).read_bytes())
    assert "fleeting.safetensors" in folders.vid2vid_names()
    assert host.NODE_CLASS_MAPPINGS["RealPortraitLoadVid2Vid"].validate_inputs(weights="fleeting.safetensors") is True
    names = folders.vid2vid_names()
    file.unlink()
    with refused(
        pack, "'fleeting.safetensors' was there a moment ago and is gone. Looked in: /.*comes with the pack", "WeightsError"
    ):
        folders._path("fleeting.safetensors", names, (folders.FOLDER,), "Face Vid2vid weights", folders.GET_VID2VID)
    with refused(pack, "'fleeting.safetensors' is not one of the", "WeightsError"):
        run_node("RealPortraitLoadVid2Vid", weights="fleeting.safetensors")


def test_the_detector_names_its_folder_size_and_licence(pack, run_node, tmp_path):
    detect = pack("realportrait_core.face.detect")
    with refused(pack, rf"missing: looked for {tmp_path}.*python install.py.*233 KB, MIT", "WeightsError"):
        detect.FaceDetector(tmp_path / detect.MODEL_NAME)

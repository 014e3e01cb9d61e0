"""LivePortrait's public files in the folders where people keep them: what the menus offer, what is loaded, what is said."""

import shutil
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import refusal
import torch
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).resolve().parents[1]))
import public

CONFIG = replace(public.TINY, crop_size=256)
VID2VID, STITCHING = "RealPortraitLoadVid2Vid", "RealPortraitLoadStitching"
FILES = [*public.NAMES.values(), public.STITCHING]


def network(**changes):
    torch.manual_seed(0)
    return public.FaceVid2Vid(replace(CONFIG, **changes)).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The five public files in miniature."""
    folder = tmp_path_factory.mktemp("files")
    public.write_kijai(folder, network())
    return folder


@pytest.fixture
def models(host):
    """The host's models folder, in which what a test puts there is gone after it."""
    import folder_paths

    models = Path(folder_paths.models_dir)
    before = {path for key in ("liveportrait", "realportrait") for path in (models / key).rglob("*")}
    yield models
    for key in ("liveportrait", "realportrait"):
        for path in sorted((models / key).rglob("*"), reverse=True):
            if path not in before:
                path.rmdir() if path.is_dir() else path.unlink()
    folder_paths.filename_list_cache.clear()


@pytest.fixture
def menu(host, models):
    """menu(node) -> what its menu offers now."""
    import folder_paths

    def run(node: str) -> list[str]:
        folder_paths.filename_list_cache.clear()
        return host.NODE_CLASS_MAPPINGS[node].define_schema().inputs[0].options

    return run


@pytest.fixture
def load(host, run_node, menu):
    """load(node, name) -> its outputs, after the check that the host makes before a run."""

    def run(node: str, name: str):
        menu(node)
        kind = host.NODE_CLASS_MAPPINGS[node]
        checked = kind.validate_inputs(weights=name)
        if checked is not True:
            raise AssertionError(checked)
        kind.fingerprint_inputs(weights=name)
        return run_node(node, weights=name)

    return run


def sizes(output) -> dict:
    return asdict(output[0].model.cfg)


refused = partial(refusal.refused, kind="WeightsError")


@pytest.mark.parametrize("inside", ["liveportrait", "liveportrait/animal", "realportrait", "realportrait/lp/human"])
def test_five_files_are_one_entry_and_load_whole(models, files, menu, load, inside):
    shutil.copytree(files, models / inside, dirs_exist_ok=True)
    for node in (VID2VID, STITCHING):
        offered = menu(node)
        assert offered.count(inside) == 1 and not [name for name in offered if Path(name).stem in FILES]
    loaded = load(VID2VID, inside)
    assert sizes(loaded) == asdict(CONFIG) and loaded[0].model.generator is not None
    told = sorted(line.split(":")[0] for line in loaded[1].split("\n"))
    assert told == sorted(f"{name}.safetensors" for name in FILES) and [*loaded[2]] == ["stitching", "lip", "eye"]
    networks, info = load(STITCHING, inside)
    assert [*networks] == ["stitching", "lip", "eye"] and info.startswith(f"{public.STITCHING}.safetensors: ")


def test_without_the_stitching_file_there_is_none(models, files, load):
    """Until it is put there."""
    shutil.copytree(files, models / "liveportrait", dirs_exist_ok=True)
    file = models / "liveportrait" / f"{public.STITCHING}.safetensors"
    data = file.read_bytes()
    file.unlink()
    assert load(VID2VID, "liveportrait")[2] is None
    save_file({key: 2 * value for key, value in load_file(files / file.name).items()}, file.with_name("another.safetensors"))
    another = load(VID2VID, "liveportrait")[2]["stitching"].mlp[0].weight
    file.write_bytes(data)
    assert torch.equal(2 * load(VID2VID, "liveportrait")[2]["stitching"].mlp[0].weight, another)  # the published name comes first


def test_the_bundled_weights_stay_first(host, pack, models, files, menu):
    shutil.copytree(files, models / "liveportrait", dirs_exist_ok=True)
    bundled = pack("nodes.host.folders").BUNDLED_VID2VID
    assert menu(VID2VID)[:2] == [bundled, "liveportrait"]
    assert not [name for name in menu("RealPortraitLoadModel") if Path(name).stem in FILES or name == "liveportrait"]


def test_sets_of_their_own_stay_apart(models, files, load):
    shutil.copytree(files, models / "liveportrait", dirs_exist_ok=True)
    public.write_kijai(models / "liveportrait" / "animal", network(num_kp=7))
    assert load(VID2VID, "liveportrait")[0].model.cfg.num_kp == CONFIG.num_kp
    assert load(VID2VID, "liveportrait/animal")[0].model.cfg.num_kp == 7


@pytest.mark.parametrize("name", [*public.NAMES.values()])
def test_names_in_old_workflows_still_load(models, files, menu, load, name):
    """Before the folder was one entry, any one of its files was chosen."""
    shutil.copytree(files, models / "realportrait", dirs_exist_ok=True)
    assert sizes(load(VID2VID, f"{name}.safetensors")) == asdict(CONFIG)
    assert len(load(STITCHING, f"{public.STITCHING}.safetensors")[0]) == 3


def test_extra_model_paths(models, files, menu, load, tmp_path):
    """The key `liveportrait` of extra_model_paths.yaml, read by the host's own function."""
    import folder_paths
    from utils.extra_config import load_extra_path_config

    shutil.copytree(files, tmp_path / "elsewhere" / "mine")
    (tmp_path / "extra.yaml").write_text(f"my_models:\n    base_path: {tmp_path}\n    liveportrait: elsewhere\n")
    before = folder_paths.get_folder_paths("liveportrait")
    try:
        load_extra_path_config(str(tmp_path / "extra.yaml"))
        assert "liveportrait/mine" in menu(VID2VID)
        assert load(VID2VID, "liveportrait/mine")[0].model.generator is not None
    finally:
        folder_paths.folder_names_and_paths["liveportrait"][0][:] = before


def test_a_bundle_beside_them_is_an_entry_too(pack, models, menu, load):
    (models / "liveportrait").mkdir(exist_ok=True)
    pack("realportrait_core.vid2vid.checkpoint").save_vid2vid(models / "liveportrait" / "mine.safetensors", network())
    assert "mine.safetensors" in menu(VID2VID) and "liveportrait" not in menu(VID2VID)
    assert sizes(load(VID2VID, "mine.safetensors")) == asdict(CONFIG)


def test_a_new_file_beside_the_others_is_noticed(host, models, files, menu):
    shutil.copytree(files, models / "liveportrait", dirs_exist_ok=True)
    menu(VID2VID)
    before = host.NODE_CLASS_MAPPINGS[VID2VID].fingerprint_inputs(weights="liveportrait")
    (models / "liveportrait" / "spade_generator.safetensors").unlink()
    assert host.NODE_CLASS_MAPPINGS[VID2VID].fingerprint_inputs(weights="liveportrait") != before


def without(*names):
    return lambda folder: [(folder / f"{name}.safetensors").unlink() for name in names]


def written(name, content):
    return lambda folder: (folder / f"{name}.safetensors").write_bytes(content)


def cut_short(folder: Path) -> None:
    path = folder / "warping_module.safetensors"
    path.write_bytes(path.read_bytes()[:-4000])


def as_originals(folder: Path) -> None:
    shutil.rmtree(folder)
    public.write_originals(folder, network())


THERE = r"Put warping_module.safetensors \(182 MB\) there, from Kijai/LivePortrait_safetensors on Hugging Face"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (without("warping_module"), rf"models.liveportrait lacks LivePortrait's warping network\. {THERE} \(MIT\)\.$"),
        (
            without("warping_module", "motion_extractor", "spade_generator"),
            r"motion and warping network\. Put motion_extractor.safetensors \(112 MB\), warping_module.safetensors \(182 MB\) "
            r"and spade_generator.safetensors \(222 MB\) there",
        ),
        (written("warping_module", b"version https://git-lfs.github.com/spec/v1\noid 1\n"), rf"Git LFS pointer.*{THERE}"),
        (written("warping_module", b"<!doctype html><title>Log in</title>"), rf"a web page, not the weights.*{THERE}"),
        (written("warping_module", b""), rf"\(0 bytes\) is not a safetensors file.*{THERE}"),
        (written("warping_module", b"PK\x03\x04 and more"), rf"a pickled PyTorch file.*{THERE}"),
        (cut_short, rf"warping_module.safetensors is cut short: \d+ bytes of \d+\. Download it again\. {THERE}"),
        (written("spade_generator", b"<html>"), r"web page.*Put spade_generator.safetensors \(222 MB\) there"),
        (
            as_originals,
            r"convert the .pth that are there.*`python -m realportrait_core.convert liveportrait \".*\" \".*liveportrait\"`",
        ),
    ],
    ids=["one missing", "three missing", "pointer", "page", "empty", "pickle", "cut", "generator", "pth"],
)
def test_what_is_wrong_is_said_with_what_to_do(pack, models, files, menu, load, spoil, message):
    shutil.copytree(files, models / "liveportrait", dirs_exist_ok=True)
    spoil(models / "liveportrait")
    assert "liveportrait" in menu(VID2VID)
    with refused(pack, message):
        load(VID2VID, "liveportrait")


def test_the_command_that_is_told_makes_them_loadable(models, load):
    """LivePortrait's own download, in its two folders, converted in place."""
    folder = models / "liveportrait"
    public.write_originals(folder, network())
    from realportrait_core.convert.__main__ import main

    assert main(["liveportrait", str(folder), str(folder)]) == 0
    assert load(VID2VID, "liveportrait")[0].model.generator is not None and len(load(STITCHING, "liveportrait")[0]) == 3


def test_stitching_alone_is_no_face_vid2vid(pack, models, files, menu, load, host):
    (models / "liveportrait").mkdir(exist_ok=True)
    shutil.copy(files / f"{public.STITCHING}.safetensors", models / "liveportrait")
    assert "liveportrait" in menu(STITCHING) and "liveportrait" not in menu(VID2VID)
    (models / "liveportrait" / f"{public.STITCHING}.safetensors").write_bytes(b"<html>")
    with refused(pack, r"web page.*Put stitching_retargeting_module.safetensors \(0.9 MB\) there"):
        load(STITCHING, "liveportrait")


def test_where_there_is_nothing_the_menus_and_errors_say_where_to_get_it(host, pack, models, menu, monkeypatch):
    folders = pack("nodes.host.folders")
    for node in (VID2VID, STITCHING):
        menu(node)
        tooltip = host.NODE_CLASS_MAPPINGS[node].define_schema().inputs[0].tooltip
        assert "Kijai/LivePortrait_safetensors" in tooltip and "models/liveportrait" in tooltip
    monkeypatch.setattr(folders.folder_paths, "get_filename_list", lambda key: [])
    said = host.NODE_CLASS_MAPPINGS[STITCHING].validate_inputs(weights="liveportrait")
    assert said.startswith("No stitching weights found. Put a .safetensors file in one of: ")
    assert "stitching_retargeting_module.safetensors (0.9 MB), under the MIT licence, is in Kijai/LivePortrait_safetensors" in said
    assert str(models / "liveportrait") in said
    said = host.NODE_CLASS_MAPPINGS[VID2VID].validate_inputs(weights="liveportrait")
    assert said.startswith("No Face Vid2vid weights found. Put a .safetensors file in one of: ")
    assert "LivePortrait's files (521 MB, MIT) are in Kijai/LivePortrait_safetensors" in said


@pytest.mark.slow
def test_the_files_at_their_full_size(pack, models, load):
    """521 MB with random weights, as they would be downloaded; their sizes are those that the errors state."""
    config = pack("realportrait_core.config").Vid2VidConfig()
    torch.manual_seed(0)
    public.write_kijai(models / "liveportrait", public.FaceVid2Vid(config).eval())
    files = pack("realportrait_core.vid2vid.public").PUBLIC_FILES
    for role in public.NAMES:
        size = (models / "liveportrait" / f"{files[role].name}.safetensors").stat().st_size
        assert size / 1e6 == pytest.approx(files[role].megabytes, rel=0.02)
    vid2vid = load(VID2VID, "liveportrait")[0].model
    assert vid2vid.cfg == config and sum(value.numel() for value in vid2vid.generator.parameters()) == pytest.approx(
        55_365_388, rel=1e-3
    )

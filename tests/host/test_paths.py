"""Names in widgets: whatever is typed into any node of the pack, no file outside the model, input and output folders is touched.

The inputs are found from the nodes' own descriptions, so that a new node is covered: menus of files, and texts that name one.
"""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from refusal import refused

ROOT = Path(__file__).resolve().parents[2]
FILES = re.compile(r"\.(safetensors|png|jpe?g|mp4|gif|onnx)( \[output\])?$|^example: ")
NAMES = re.compile(r"file|folder|path|prefix|name$")
SUFFIXES = (".safetensors", ".png", ".mp4")
KNOWN = {
    ("RealPortraitLoadModel", "weights"),
    ("RealPortraitLoadVid2Vid", "weights"),
    ("RealPortraitLoadStitching", "weights"),
    ("RealPortraitAnimate", "weights"),
    ("RealPortraitAnimate", "vid2vid_weights"),
    ("RealPortraitLoadPortrait", "image"),
    ("RealPortraitLoadDrivingVideo", "file"),
    ("RealPortraitStreamDrivingVideo", "file"),
    ("RealPortraitLoadMotion", "file"),
    ("RealPortraitSaveMotion", "filename_prefix"),
    ("RealPortraitLoadState", "file"),
    ("RealPortraitSaveState", "filename_prefix"),
}


@pytest.fixture(scope="module")
def outside(host) -> Path:
    """A folder beside the host's, with files that would load; links to them lie in input and output, and a pipe in both."""
    import folder_paths

    base = Path(folder_paths.get_input_directory()).parent
    folder, assets = base / "outside", ROOT / "assets"
    folder.mkdir()
    for name, source in (
        ("secret.safetensors", "motion.safetensors"),
        ("secret.png", "portrait.png"),
        ("secret.mp4", "driving.mp4"),
    ):
        (folder / name).write_bytes((assets / source).read_bytes())
    for place in (base / "input", base / "output"):
        (place / "linked").symlink_to(folder, target_is_directory=True)
        for suffix in SUFFIXES:
            (place / f"link{suffix}").symlink_to(folder / f"secret{suffix}")
            os.mkfifo(place / f"pipe{suffix}")
            (place / f"folder{suffix}").mkdir()
    yield folder
    for place in (base / "input", base / "output"):
        (place / "linked").unlink()
        for suffix in SUFFIXES:
            (place / f"link{suffix}").unlink()
            (place / f"pipe{suffix}").unlink()
            (place / f"folder{suffix}").rmdir()


def leading_out(outside: Path, suffix: str) -> dict[str, str]:
    """Names of a file that is there and not inside."""
    file = outside / f"secret{suffix}"
    return {
        "parent": f"../outside/{file.name}",
        "absolute": str(file),
        "down and up": f"linked/../../outside/{file.name}",
        "down and up below": f"folder{suffix}/../../outside/{file.name}",
        "doubled": f"....//../outside/{file.name}",
        "backslashes": f"..\\outside\\{file.name}",
        "fullwidth dots": f"．．/outside/{file.name}",
        "a slash that is none": f"..∕outside∕{file.name}",
        "decomposed": f"e\u0301/../../outside/{file.name}",
        "NUL byte behind": f"../outside/{file.name}\0",
        "its address": file.as_uri(),
        "with [input]": f"../outside/{file.name} [input]",
        "with [output]": f"../outside/{file.name} [output]",
        "absolute with [output]": f"{file} [output]",
        "behind example": f"example: ../../outside/{file.name}",
        "link": f"link{suffix}",
        "link with [output]": f"link{suffix} [output]",
        "linked folder": f"linked/{file.name}",
        "linked folder with [output]": f"linked/{file.name} [output]",
        "system": "/etc/passwd",
    }


def never_a_file(suffix: str) -> dict[str, str]:
    """What is no name, or a device's on some system."""
    return {
        "empty": "",
        "dots": "..",
        "NUL byte": f"x\0{suffix}",
        "NUL byte behind": f"link{suffix}\0.png",
        "line": f"x\n{suffix}",
        "very long": "a" * 5000 + suffix,
        "very deep": "a/" * 3000 + f"x{suffix}",
        "surrogate": f"\udcff{suffix}",
        "right to left": f"\u202e{suffix}",
        "percent": f"%2e%2e/outside/secret{suffix}",
        "home": f"~/x{suffix}",
        "variable": f"$HOME/x{suffix}",
        "address": f"http://127.0.0.1:9/x{suffix}",
        "file address": f"file:///etc/passwd{suffix}",
        "pipe": f"pipe{suffix}",
        "folder": f"folder{suffix}",
        "device": "/dev/zero",
        "Windows drive": f"C:\\x{suffix}",
        "Windows share": f"\\\\host\\share\\x{suffix}",
        "Windows parent": f"..\\..\\outside\\secret{suffix}",
        "device with this suffix": f"nul{suffix}",
        **{name: name for name in ("CON", "NUL", "COM1", "nul.png", "LPT9.safetensors", "x.", "x ")},
    }


@pytest.fixture(scope="module")
def named(host, outside) -> list[tuple[str, str, bool]]:
    """(node, input, whether it is a menu) of every input of the pack that names a file."""
    found = []
    for node_id, node in host.NODE_CLASS_MAPPINGS.items():
        if not node_id.startswith("RealPortrait"):
            continue
        for section in ("required", "optional"):
            for name, (kind, *options) in node.INPUT_TYPES().get(section, {}).items():
                menu = (options[0] if options else {}).get("options", kind if isinstance(kind, list) else [])
                empty = menu == [] and kind in ("COMBO", [])  # of files that do not come with the pack
                if empty or any(isinstance(option, str) and FILES.search(option) for option in menu):
                    found.append((node_id, name, True))
                elif kind == "STRING" and NAMES.search(name):
                    found.append((node_id, name, False))
    return found


@pytest.fixture(scope="module")
def opened():
    """A list of every path that Python opens, lists, makes or moves while it is not None: opened["paths"]."""
    heard = {"paths": None}
    events = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate"}

    def hook(event: str, given: tuple) -> None:
        if heard["paths"] is not None and event in events:
            heard["paths"] += [os.fsdecode(path) for path in given[:2] if isinstance(path, (str, bytes, os.PathLike))]

    sys.addaudithook(hook)
    return heard


def call(host, node_id: str, **given):
    """A node's execute, with the widgets' defaults and nothing in the sockets."""
    node = host.NODE_CLASS_MAPPINGS[node_id]
    described = node.INPUT_TYPES()
    inputs = {}
    for section in ("required", "optional"):
        for name, (kind, *options) in described.get(section, {}).items():
            choices = (options[0] if options else {}).get("options", kind if isinstance(kind, list) else [None])
            inputs[name] = (options[0] if options else {}).get("default", choices[0] if choices else None)
    return node.execute(**inputs | given)


def snapshot(folder: Path) -> dict[str, tuple]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_every_input_that_names_a_file_is_found(named):
    assert KNOWN <= {(node, name) for node, name, _ in named}


def test_menus_refuse_every_other_name(host, pack, named, outside, opened):
    """When the prompt is checked, and when the node runs, by a sentence; nothing outside is opened, listed or made."""
    errors = pack("realportrait_core.errors").RealPortraitError
    before, wrong = snapshot(outside), []
    for node_id, name, menu in named:
        node = host.NODE_CLASS_MAPPINGS[node_id]
        bad = {f"{kind} {suffix}": text for suffix in SUFFIXES for kind, text in leading_out(outside, suffix).items()}
        bad |= {f"{kind} {suffix}": text for suffix in SUFFIXES for kind, text in never_a_file(suffix).items()}
        for kind, text in bad.items() if menu else ():
            others = (
                {"weights": "realportrait_mini.safetensors"}
                if (node_id, name) == ("RealPortraitAnimate", "vid2vid_weights")
                else {}
            )
            others |= (
                {"vid2vid_weights": "realportrait_mini_vid2vid.safetensors"}
                if node_id == "RealPortraitAnimate" and not others
                else {}
            )
            opened["paths"] = []
            try:
                said = node.validate_inputs(**others | {name: text})
                try:
                    if node_id != "RealPortraitAnimate":  # it hands its names to the loaders
                        call(host, node_id, **{name: text})
                        wrong.append(f"{node_id}.{name} runs with {kind}")
                except errors as error:
                    assert 20 < len(str(error)) < 1500
            finally:
                paths, opened["paths"] = opened["paths"], None
            if said is True or not said or len(said) > 1500:
                wrong.append(f"{node_id}.{name} takes {kind}: {said!r:.200}")
            wrong += [f"{node_id}.{name}, {kind}: touches {path}" for path in paths if is_outside(path, outside)]
    assert not wrong
    assert snapshot(outside) == before


def is_outside(path: str, outside: Path) -> bool:
    real = os.path.realpath(path)
    return Path(real).is_relative_to(outside) or real in ("/etc/passwd", "/dev/zero")


def test_nothing_outside_is_offered(host, named, outside):
    for node_id, name, menu in named:
        described = host.NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()
        kind, *options = (described["required"] | described.get("optional", {}))[name]
        if menu:
            offered = options[0]["options"] if options and "options" in options[0] else kind
            assert not [option for option in offered if "link" in option or "secret" in option or "pipe" in option], node_id


def test_texts_that_name_a_file_lead_nowhere_else(host, pack, named, outside, opened):
    """Whatever a node that saves says with nothing to save: no folder or file is made or opened outside."""
    before, wrong = snapshot(outside), []
    for node_id, name, menu in named:
        bad = leading_out(outside, "") | never_a_file("") | {"linked": "linked/x", "deep in linked": "linked/a/b"}
        for kind, text in () if menu else bad.items():
            opened["paths"] = []
            try:
                call(host, node_id, **{name: text})
            except Exception:
                pass  # of what kind is the next test's matter
            finally:
                paths, opened["paths"] = opened["paths"], None
            wrong += [f"{node_id}.{name}, {kind}: touches {path}" for path in paths if is_outside(path, outside)]
    assert not wrong and snapshot(outside) == before


REFUSED = [
    "../x",
    "/tmp/x",
    "linked/x",
    "linked/a/b",
    "a/../../x",
    "x\0",
    "a\nb/x",
    "CON/x",
    "com1/x",
    "a/nul.txt/x",
    "a./x",
    "a /x",
    "lpt1",
    "a\\Aux\\b",
    7,
    ["x"],
]
REFUSED += ["\udcff", "\ud800", "\u202egnp", "a" * 240, "a" * 300, "a" * 300 + "/x", "a/" * 3000 + "x"]
TAKEN = ["x", "a/b/x", "a/../x", "console", "comet1", "com10/x", "x.", "x ", "a b/c.d", "..\\x", "%year%/x"]
TAKEN += ["\u30e2\u30fc\u30b7\u30e7\u30f3/\u9854", "\xfcn\xefcode/gesicht 1", "e\u0301"]


@pytest.fixture(scope="module")
def save(host, pack):
    """save(prefix): Save RealPortrait Motion with the example's motion."""
    core = pack("realportrait_core.motion_file")
    example = core.load_motion(pack("nodes.host.media").MOTIONS["example: motion.safetensors"])
    module = pack("nodes.motion_file")

    def run(prefix: str, monkeypatch) -> str:
        monkeypatch.setattr(module, "driving_motion", lambda keypoints, fps: example)
        return module.SaveMotion.execute(None, 25.0, prefix).result[0]

    return run


@pytest.mark.parametrize("prefix", REFUSED, ids=lambda text: ascii(text)[:30])
def test_a_prefix_that_is_refused(pack, save, outside, prefix, monkeypatch):
    base = outside.parent
    before = {str(path) for path in base.rglob("*")}
    with refused(pack, "cannot begin the name of a file|was not saved.*name too long"):
        save(prefix, monkeypatch)
    assert {str(path) for path in base.rglob("*")} == before


@pytest.mark.parametrize("prefix", TAKEN, ids=lambda text: ascii(text)[:30])
def test_a_prefix_that_is_taken(save, outside, prefix, monkeypatch):
    """The file is below the output folder, and loads from there by its name in the menu."""
    import folder_paths

    saved = Path(folder_paths.get_output_directory(), save(prefix, monkeypatch))
    assert saved.is_file() and saved.resolve().is_relative_to(Path(folder_paths.get_output_directory()).resolve())
    assert not re.search(r"[. ]$|^(con|nul)(\.|$)", saved.name, re.IGNORECASE)


def test_a_linked_folder_as_a_whole_is_followed(pack, tmp_path):
    """Input and output on another disk: what counts is where their own files are."""
    media = pack("nodes.host.media")
    real, link = tmp_path / "disk", tmp_path / "input"
    (real / "below").mkdir(parents=True)
    link.symlink_to(real, target_is_directory=True)
    Image.new("RGB", (20, 20)).save(real / "below" / "x.png")
    assert media._below(link, "below/x.png") == link / "below" / "x.png"


# Saved whole or not at all

SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from realportrait_core.checkpoint import save
save(sys.argv[2], {"weight": torch.zeros(60_000_000)}, {})
"""


def large(path: Path) -> bool:
    try:
        return path.stat().st_size > 2**20
    except FileNotFoundError:  # renamed since it was listed
        return False


def test_a_save_that_is_killed_leaves_the_old_file_and_nothing_that_is_offered(host, pack, save, monkeypatch):
    """SIGKILL in the middle of writing: the motion that was there is whole, and what is left of the new one is in no menu."""
    import folder_paths

    output = Path(folder_paths.get_output_directory())
    target = output / save("killed/motion", monkeypatch)
    whole, offered = target.read_bytes(), pack("nodes.host.media").motions()
    command = [sys.executable, "-c", SAVE, str(ROOT), str(target)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not (parts := [path for path in target.parent.rglob("*") if path.is_file() and large(path) and path != target]):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGSTOP)  # so that it cannot rename the file before it is killed
        assert parts[0].exists(), "it wrote faster than this test looked"
        process.kill()
    folder = parts[0].parent  # safetensors' own temporary file may have any name
    assert folder.parent == target.parent and folder.suffix != ".safetensors" and folder.name.startswith(".")
    assert target.read_bytes() == whole
    assert pack("nodes.host.media").motions() == offered
    save("killed/motion", monkeypatch)
    assert len(pack("nodes.host.media").motions()) == len(offered) + 1


def test_what_the_nodes_write_is_renamed_when_it_is_whole():
    """Every function, outside the commands, that writes a file also moves it to its place."""
    writers = re.compile(r"\b(write_text|write_bytes|save_file|np\.savez?|torch\.save|imwrite)\(|open\([^)]*[\"'][wax]b?[\"']")
    commands = {"train", "eval", "convert", "batch", "head_rotation"}
    core, found = ROOT / "realportrait_core", {}
    for file in [*core.rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        if file.is_relative_to(core) and file.relative_to(core).parts[0] in commands:
            continue
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and writers.search(text := ast.unparse(function)):
                found[f"{file.relative_to(ROOT)}: {function.name}"] = "whole_file(" in text or "replace(" in text
    found.pop("realportrait_core/video/process.py: __init__", None)  # it writes into a pipe
    assert found["realportrait_core/checkpoint/__init__.py: save"]
    assert [place for place, renamed in found.items() if not renamed] == []

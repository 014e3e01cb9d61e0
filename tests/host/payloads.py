"""Files that would run code in whoever unpickles, imports or evaluates them, and a prompt for every loader that opens one."""

import io
import json
import marshal
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import torch

# What Python tells an audit hook when something is run; exec is of eval and imports too, so of that only what is no module's.
RUNS_CODE = {"exec", "pickle.find_class", "ctypes.dlopen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}


class Payload:
    """Unpickled, it makes the file `marker`."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def contents(marker: Path) -> dict[str, bytes]:
    """Name of a kind -> the bytes of such a file."""
    payload, source = Payload(marker), f"__import__('os').system('touch {marker}')"
    made = {"garbage": b"neither weights, nor a picture, nor a video " * 100, "pickle": pickle.dumps(payload)}
    for name, new in (("torch zip", True), ("torch legacy", False)):
        file = io.BytesIO()
        torch.save({"state_dict": {"weight": torch.zeros(2)}, "payload": payload}, file, _use_new_zipfile_serialization=new)
        made[name] = file.getvalue()
    for name, save in (("npy", np.save), ("npz", np.savez)):
        file = io.BytesIO()
        save(file, np.array([payload], dtype=object))
        made[name] = file.getvalue()
    made["marshalled code"] = marshal.dumps(compile(source, "file", "exec"))
    made["python"] = source.encode()
    made["yaml"] = f"!!python/object/apply:os.system ['touch {marker}']".encode()
    made["template"] = b"{{ cycler.__init__.__globals__.os.popen('touch " + str(marker).encode() + b"').read() }}"
    made["playlist"] = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    made["concat"] = b"ffconcat version 1.0\nfile http://127.0.0.1:9/a.mp4\nfile /etc/passwd\n"
    made["session"] = (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )
    header = {"__metadata__": {name: source for name in ("realportrait", "config", "modelspec.architecture", "format")}}
    header["weight"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps(header).encode()
    made["code in the header"] = struct.pack("<Q", len(text)) + text + bytes(4)
    return made


def prompts(base: Path, marker: Path) -> dict[str, dict]:
    """Writes the files into the folders of a host, and names a prompt for each."""
    made = {}
    for number, (kind, content) in enumerate(contents(marker).items()):

        def put(folder: str, name: str, content: bytes = content, number: int = number) -> str:
            path = base / folder / f"{number:02} {name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            return path.name

        def load(class_type: str, shown: int, **inputs) -> dict:
            used = {"1": {"class_type": class_type, "inputs": inputs}}
            return used | {"2": {"class_type": "PreviewAny", "inputs": {"source": ["1", shown]}}}

        weights = put("models/realportrait", "a.safetensors")
        made[f"model: {kind}"] = load("RealPortraitLoadModel", 1, weights=weights, weight_dtype="default")
        made[f"vid2vid: {kind}"] = load("RealPortraitLoadVid2Vid", 1, weights=weights, weight_dtype="default")
        made[f"stitching: {kind}"] = load("RealPortraitLoadStitching", 1, weights=weights)
        public = base / "models" / "liveportrait" / f"{number:02}"
        public.mkdir(parents=True)
        for suffix in (".safetensors", ".pth"):
            for name in ("appearance_feature_extractor", "motion_extractor", "warping_module", "spade_generator"):
                (public / f"{name}{suffix}").write_bytes(content)
        made[f"LivePortrait's files: {kind}"] = load(
            "RealPortraitLoadVid2Vid", 1, weights=f"liveportrait/{number:02}", weight_dtype="default"
        )
        made[f"portrait: {kind}"] = load("RealPortraitLoadPortrait", 0, image=put("input", "a.png"))
        given = dict(start=0.0, start_in="seconds", frames=0, stride=1, fps=0.0, longest_side=0)
        for suffix in ("mp4", "gif", "mov"):
            made[f"{suffix}: {kind}"] = load("RealPortraitLoadDrivingVideo", 2, file=put("input", f"a.{suffix}"), **given)
        motion = load(
            "RealPortraitLoadMotion",
            3,
            file=put("input", "a.safetensors"),
            portrait_face="largest",
            vid2vid=["3", 0],
            portrait=["4", 0],
        )
        bundled = {"class_type": "RealPortraitLoadVid2Vid", "inputs": {"weights": "realportrait_mini_vid2vid.safetensors"}}
        portrait = {"class_type": "RealPortraitLoadPortrait", "inputs": {"image": "example: portrait.png"}}
        made[f"motion: {kind}"] = motion | {"3": bundled, "4": portrait}
    return made

"""A whole animation on a host whose Python has no OpenCV, in a process of its own: prints one line of JSON.

    python tests/host/without_opencv.py

nodes: how many of the pack are there. frames: shape of the animation. detecting, inspecting: what is said where OpenCV is needed.
"""

import importlib.abc
import json
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for toy_sizes


class NoOpenCV(importlib.abc.MetaPathFinder):
    """Finds nothing by the name of cv2, and lets nobody else find it."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cv2":
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
        return None


sys.meta_path.insert(0, NoOpenCV())

import tiny  # noqa: E402
import torch  # noqa: E402
from conftest import pack_module, start_host  # noqa: E402

FACES = dict(portrait_face="largest", driver_face="largest", missing_face="hold")
PORTRAIT = {"x": 30, "y": 30, "width": 80, "height": 90}
SAMPLER = dict(seed=1, steps=2, sampler_name="euler", scheduler="normal", strength=1.0, guidance=1.0)


def main(base: Path) -> dict:
    host = start_host(base)
    import comfy.sd

    folder = base / "models" / "realportrait"
    folder.mkdir()
    tiny.dit_file(pack_module, folder / "dit.safetensors", input_sq_size=64)
    tiny.vid2vid_file(pack_module, folder / "vid2vid.safetensors")
    (folder / "face_detection_yunet_2023mar.onnx").write_bytes(b"not read without OpenCV")

    def run(node: str, **inputs):
        return host.NODE_CLASS_MAPPINGS[f"RealPortrait{node}"].execute(**inputs).result

    def said(node: str, **inputs) -> str:
        try:
            run(node, **inputs)
        except pack_module("realportrait_core.errors").RealPortraitError as error:
            return str(error)
        return "nothing"

    g = torch.Generator().manual_seed(0)
    portrait, driver = torch.rand(1, 160, 150, 3, generator=g), torch.rand(3, 120, 110, 3, generator=g)
    vae = comfy.sd.VAE(sd=tiny.vae_state(pack_module))
    model = run("LoadModel", weights="dit.safetensors", weight_dtype="default")[0]
    vid2vid = run("LoadVid2Vid", weights="vid2vid.safetensors")[0]
    given = dict(vid2vid=vid2vid, portrait=portrait, driver=driver, **FACES)
    boxes = [[{"x": 30 + i, "y": 30, "width": 60, "height": 70}] for i in range(3)]
    keypoints = run("ExtractKeypoints", **given, portrait_boxes=PORTRAIT, driving_boxes=boxes)[0]
    motion = run("MotionMaps", vid2vid=vid2vid, keypoints=keypoints, **tiny.RELATIVE, framing="auto")[0]
    latent = run("Sampler", model=model, vae=vae, portrait=portrait, motion=motion, **SAMPLER)[0]
    frames = vae.decode(latent["samples"])
    inspected = dict(keypoints=keypoints, motion=motion, portrait=portrait, driver=driver, most=2, clip_frames=16)
    return {
        "nodes": sum(name.startswith("RealPortrait") for name in host.NODE_CLASS_MAPPINGS),
        "frames": list(frames.shape),
        "finite": bool(torch.isfinite(frames).all()),
        "detecting": said("ExtractKeypoints", **given),
        "inspecting": said("Inspect", **inspected),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        print(json.dumps(main(Path(place))))

"""The whole line in the host's process on tiny networks: portrait and driving frames to frames of the portrait's size."""

from pathlib import Path

import comfy.sd
import tiny
import torch

SETTINGS = dict(seed=5, steps=2, sampler_name="euler", scheduler="normal", strength=1.0)


class Line:
    """The loaders' outputs, and the nodes one after the other."""

    def __init__(self, pack, run_node):
        self.run_node = run_node
        self.model = run_node("RealPortraitLoadModel", weights="line_dit.safetensors", weight_dtype="default")[0]
        self.vid2vid = run_node("RealPortraitLoadVid2Vid", weights="line_vid2vid.safetensors")[0]
        self.vae = comfy.sd.VAE(sd=tiny.vae_state(pack))

    def node(self, name: str, **inputs):
        return self.run_node(f"RealPortrait{name}", **inputs)[0]

    def keypoints(self, portrait, driving, **changes):
        return self.node(
            "ExtractKeypoints", vid2vid=self.vid2vid, portrait=portrait, driver=driving, **{**tiny.EXTRACTION, **changes}
        )

    def motion(self, keypoints, **changes):
        return self.node("MotionMaps", vid2vid=self.vid2vid, keypoints=keypoints, framing="auto", **{**tiny.RELATIVE, **changes})

    def latents(self, motion, **changes):
        return self.node("Sampler", model=self.model, vae=self.vae, motion=motion, **{**SETTINGS, **changes})["samples"]

    def shown(self, latents: torch.Tensor, motion) -> torch.Tensor:
        """The animated portrait (L, H, W, 3): latents decoded by the host and pasted back."""
        square = self.vae.decode(latents)
        return self.node("PasteBack", frames=square, motion=motion, feather=8.0, length="longest")

    def frames(self, motion, **changes) -> torch.Tensor:
        return self.shown(self.latents(motion, **changes), motion)

    def rendered(self, motion) -> torch.Tensor:
        """The same by Face Vid2vid's own generator."""
        return self.node("RenderVid2Vid", vid2vid=self.vid2vid, motion=motion, result="portrait")


def weights(pack) -> None:
    """The files that the loaders find."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / "realportrait"
    folder.mkdir(exist_ok=True)
    tiny.dit_file(pack, folder / "line_dit.safetensors")
    tiny.vid2vid_file(pack, folder / "line_vid2vid.safetensors")


def picture(frames: int, height: int, width: int, seed: int = 3) -> torch.Tensor:
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))

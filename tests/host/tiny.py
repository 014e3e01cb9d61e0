"""Tiny networks with random weights, as files: shapes and rules can be tested with them, pictures cannot."""

import torch
import toy_sizes

# Inputs of Extract Face Motion with boxes, so that no detector is needed, and of Apply Motion to Portrait at their defaults.
EXTRACTION = dict(
    portrait_face="largest", driver_face="largest", missing_face="hold", portrait_box="40, 40, 80, 90", driver_box="30 30 60 70"
)
RELATIVE = dict(mode="relative", pose_gain=1.0, expression_gain=1.0, neutral_frame=0)


def dit_config(pack, **changes):
    config = pack("realportrait_core.config")
    conditioner = config.ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(8, 8, 8))
    given = dict(depth=4, heads=4, control_depth=2, conditioner=conditioner)
    return config.DiTConfig(**toy_sizes.DIT | given | changes)


def dit_file(pack, path, **changes):
    """A RealPortrait DiT of a few thousand parameters in which no path is dead."""
    config = dit_config(pack, **changes)
    generator = torch.Generator().manual_seed(0)
    network = pack("realportrait_core.dit.model").RealPortraitDiT(config)
    state = {key: torch.randn(value.shape, generator=generator) * 0.15 for key, value in network.state_dict().items()}
    checkpoint = pack("realportrait_core.checkpoint")
    checkpoint.save(path, state, checkpoint.bundle_metadata("dit", config))
    return path


def maps(pack, frames, size=64, channels=6, seed=1):
    """Motion maps of a face in the middle of the picture."""
    generator = torch.Generator().manual_seed(seed)
    to_crop = torch.eye(3, dtype=torch.float64).repeat(frames, 1, 1)
    to_crop[:, :2] *= 512 / size
    disc = torch.tensor([[3 / size, 0, -1.5], [0, 3 / size, -1.5]], dtype=torch.float64).repeat(frames, 1, 1)
    f = torch.randn(frames, channels, 8, 8, generator=generator)
    return pack("realportrait_core.motion_map").MotionMaps(f.half(), to_crop, disc, size, size)


def latent(frames, size=64, seed=2):
    """Latents in the VAE's own scale."""
    return torch.randn(frames, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(seed)) * 5


def vid2vid_file(pack, path, **changes):
    """A Face Vid2vid with crops of 32 px, so frames of 64 px, and maps of 6 channels."""
    config = pack("realportrait_core.config").Vid2VidConfig(**toy_sizes.VID2VID | changes)
    torch.manual_seed(0)
    network = pack("realportrait_core.vid2vid").FaceVid2Vid(config).eval()
    pack("realportrait_core.vid2vid.checkpoint").save_vid2vid(path, network)
    return path


def vae_state(pack):
    """A TinyVAE under the keys that the host's VAE loader recognises."""
    torch.manual_seed(0)
    return pack("realportrait_core.vae").TinyVAE().state_dict()

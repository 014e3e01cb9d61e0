"""RealPortrait as an ordinary MODEL: a host config, a BaseModel and a ModelPatcher around the core's network.

Latents are 4-D with a clip's frames along the batch axis, so that every frame has its timestep. Frames whose noise_mask is 0
everywhere are the paper's conditional frames: inputs without noise, at t = 0.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention

from ...realportrait_core.checkpoint import METADATA_KEY, bundle_metadata, load_strictly
from ...realportrait_core.config import DiTConfig
from ...realportrait_core.diffusion.nonfinite import check_finite
from ...realportrait_core.dit.cache import EXACT, StepCache
from ...realportrait_core.dit.checkpoint import CONFIG_KEY, dit_config_from_state, read_dit
from ...realportrait_core.dit.embed import ClipShape
from ...realportrait_core.dit.model import RealPortraitDiT, Reference
from ...realportrait_core.dit.sparing import Sparing, by_queries, encode_motion
from ...realportrait_core.errors import InputError, WeightsError
from ...realportrait_core.motion_map import MotionMaps

WEIGHT_DTYPES = {
    "default": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fn_fast": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
PORTRAITS_KEPT = 2  # K,V of so many portraits stay with the model


# ---- one clip ----


@dataclass(eq=False)
class ClipConditioning:
    """The network's inputs from one CONDITIONING: made once per sampling, the same at every step."""

    portrait: torch.Tensor  # (1, 4, h, w) z_r, scaled
    portrait_maps: MotionMaps | None  # the portrait's own motion map, for weights with cfg.reference_motion
    maps: MotionMaps  # L frames
    shape: ClipShape
    strength: float
    conditional: torch.Tensor | None  # (L,) bool
    known: torch.Tensor | None  # (L, 4, h, w) scaled latents; only those of conditional frames are used
    weights: object | None  # identifies the patched weights; None while hooks change them from step to step
    portrait_key: bytes  # identifies the portrait by its content
    cache: StepCache | None  # a new one for each sampling; None: every step is computed in full
    sparing: Sparing  # what is done where memory runs out, of one sampling or of all clips of a run
    control: torch.Tensor | None = None  # (L, S, C), computed at the first step


@dataclass(eq=False)
class LearnedVariance:
    """transformer_options["rp_variance"] of a sampler that uses the learned variance; the network fills it in."""

    value: torch.Tensor | None = None  # (L, 4, h, w), -1 .. 1, of the last step's positive; None: not learned


def content_key(portrait: torch.Tensor, maps: MotionMaps | None) -> bytes:
    """A hash of the portrait's latent and its own maps."""
    digest = hashlib.blake2b(portrait.float().cpu().numpy().tobytes())
    for tensor in () if maps is None else (maps.f, maps.frame_to_crop, maps.face):
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.digest()


# ---- the network under the host ----


class HostDiT(RealPortraitDiT):
    """The core's network with the signature of the host's diffusion models."""

    def __init__(self, config: DiTConfig, image_model: str, dtype=None, device=None, operations=None):
        self._options: dict = {}
        self._sparing: Sparing | None = None  # of the clip that is being denoised
        super().__init__(config, operations=operations, attention=self._attention, dtype=dtype, device=device)
        self.references: OrderedDict[tuple, Reference] = OrderedDict()

    def forward(self, x, timestep, context=None, control=None, transformer_options={}, rp_clip=None, **kwargs):
        """x (L, 4, h, w), timestep (L,) -> the prediction (L, 4, h, w)."""
        return comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self._forward,
            self,
            comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options),
        ).execute(x, timestep, context, control, transformer_options, rp_clip=rp_clip, **kwargs)

    def _forward(self, x, timestep, context, control, transformer_options, rp_clip: ClipConditioning, **kwargs):
        expected = (len(rp_clip.maps), *rp_clip.portrait.shape[1:])
        if tuple(x.shape) != expected:
            raise InputError(
                f"RealPortrait denoises whole clips; it was called with a part of one: {tuple(x.shape)} of {expected}. "
                "Take away areas (ConditioningSetArea) and context windows."
            )
        self._options, self._sparing = transformer_options, rp_clip.sparing
        try:
            reference = self._reference(rp_clip, x)
            if rp_clip.strength != 0 and (rp_clip.control is None or rp_clip.weights is None):
                rp_clip.control = encode_motion(self, rp_clip.maps, reference, x, rp_clip.sparing.motion)
            frames = rp_clip.conditional
            if frames is not None:
                x = torch.where(frames[:, None, None, None], rp_clip.known.to(x), x)
            step = super().forward if rp_clip.cache is None else partial(rp_clip.cache, self)
            out = step(
                x[None],
                timestep[None],
                rp_clip.shape,
                reference,
                rp_clip.control,
                None if frames is None else frames[None],
                rp_clip.strength,
            )
            learned = transformer_options.get("rp_variance")
            if learned is not None and self.cfg.learned_sigma and 0 in transformer_options["cond_or_uncond"]:
                learned.value = out[0, :, x.shape[1] :]
            return out[0, :, : x.shape[1]]  # without the learned variance, which no stock sampler uses
        finally:
            self._options, self._sparing = {}, None

    def _reference(self, clip: ClipConditioning, x: torch.Tensor) -> Reference:
        """K, V of the portrait: computed once for all steps and clips, and again when the weights or the picture's size change."""
        key = (clip.weights, clip.portrait_key, clip.shape, x.dtype, x.device)
        if clip.weights is None or key not in self.references:
            maps = clip.portrait_maps.to(x.device, x.dtype) if self.cfg.reference_motion else None
            self.references[key] = self.encode_reference(clip.portrait.to(x), clip.shape, maps)
            while len(self.references) > PORTRAITS_KEPT:
                self.references.popitem(last=False)
        self.references.move_to_end(key)
        return self.references[key]

    def _attention(self, q, k, v):
        """The host's attention; on a CPU its PyTorch attention, which is faster there than its default."""
        attend = attention_pytorch if q.device.type == "cpu" else optimized_attention
        hosts = partial(attend, heads=q.shape[1], skip_reshape=True, transformer_options=self._options)
        return hosts(q, k, v) if self._sparing is None else by_queries(hosts, self._sparing.attention)(q, k, v)


# ---- the host's model ----


def middle_frame(latents: torch.Tensor) -> torch.Tensor:
    """The frame of a clip (L, C, h, w) to preview, (1, C, h, w); the first is the same in all steps of a continued clip."""
    return latents[len(latents) // 2 : len(latents) // 2 + 1]


class ClipLatents(comfy.latent_formats.SD15):
    """SD1.5's latents, with which stock samplers preview the middle frame of a clip instead of the first of a batch."""

    def __init__(self):
        super().__init__()
        self.latent_rgb_factors_reshape = middle_frame  # applied by the host's latent2rgb previews


class RealPortraitConfig(comfy.supported_models_base.BASE):
    """The host's description of the architecture."""

    unet_config = {"image_model": "realportrait"}
    unet_extra_config = {}  # the base class adds a UNet's heads here
    # The host's "linear" is linear in sqrt(beta); its "sqrt_linear" is DDPM's, 1e-4 .. 0.02 (sigma_max 157.4).
    sampling_settings = {"beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 0.02, "timesteps": 1000}
    latent_format = ClipLatents
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    memory_usage_factor = 0.6

    def __init__(self, dit: DiTConfig):
        self.dit = dit
        super().__init__({**self.unet_config, "config": dit})

    def model_type(self, state_dict, prefix=""):
        kinds = {"epsilon": comfy.model_base.ModelType.EPS, "v": comfy.model_base.ModelType.V_PREDICTION}
        return kinds[self.dit.prediction]

    def get_model(self, state_dict, prefix="", device=None):
        return RealPortraitModel(self, self.model_type(state_dict, prefix), device)

    def process_unet_state_dict_for_saving(self, state_dict):
        """The host's save nodes drop the metadata, so the configuration is saved as a tensor of bytes."""
        text = bytearray(bundle_metadata("dit", self.dit)[METADATA_KEY], "utf-8")
        return super().process_unet_state_dict_for_saving({**state_dict, CONFIG_KEY: torch.frombuffer(text, dtype=torch.uint8)})


class RealPortraitModel(comfy.model_base.BaseModel):
    """Turns a RealPortrait CONDITIONING and the LATENT's noise_mask into the inputs of HostDiT."""

    def __init__(self, model_config: RealPortraitConfig, model_type, device=None):
        super().__init__(model_config, model_type, device=device, unet_model=HostDiT)

    def extra_conds(self, **kwargs):
        """The host calls this once per CONDITIONING and sampling, with the weights loaded."""
        out = super().extra_conds(**kwargs)
        out["rp_clip"] = comfy.conds.CONDConstant(self._clip(kwargs))
        return out

    def _clip(self, given: dict) -> ClipConditioning:
        cfg, noise = self.model_config.dit, given["noise"]
        check(given, noise, cfg)
        maps, portrait_maps, hooks = given["rp_motion"], given.get("rp_portrait_motion"), given.get("hooks")
        caching = given.get("rp_caching", EXACT)
        conditional = None if given.get("denoise_mask") is None else conditional_frames(given["denoise_mask"])
        if conditional is not None and not conditional.any():
            conditional = None
        portrait = self.process_latent_in(given["rp_reference"])
        return ClipConditioning(
            portrait=portrait,
            portrait_maps=portrait_maps,
            maps=maps,
            # The length of training, whatever this clip's is, so that K, V of a portrait do not depend on the clip's length.
            shape=ClipShape(maps.height, maps.width, cfg.clip_frames, cfg.fps),
            strength=given["rp_strength"],
            conditional=conditional,
            known=None if conditional is None else given["latent_image"],  # scaled by the host
            weights=None if hooks else self.current_weight_patches_uuid,
            portrait_key=content_key(portrait, portrait_maps if cfg.reference_motion else None),
            # Hooks change the weights from step to step, so nothing of a step may be reused.
            cache=None if hooks or caching == EXACT else StepCache(caching),
            sparing=given.get("rp_sparing") or Sparing(cfg.clip_frames),
        )


def conditional_frames(mask: torch.Tensor) -> torch.Tensor:
    """Frames of a noise_mask (L, C, h, w) that are 0 everywhere: (L,) bool."""
    return mask.amax(dim=(1, 2, 3)) == 0


def keep_known_frames(executor, noise, latent_image, sampler, sigmas, denoise_mask=None, *args, **kwargs):
    """Wraps a whole sampling: its result has the conditional frames bit by bit, which most samplers round and some let drift."""
    samples = executor(noise, latent_image, sampler, sigmas, denoise_mask, *args, **kwargs)
    if denoise_mask is None:
        return samples
    frames = conditional_frames(comfy.sampler_helpers.prepare_mask(denoise_mask, noise.shape, samples.device))
    return torch.where(frames[:, None, None, None], latent_image.to(samples), samples)


def refuse_non_finite(executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, *args, **kwargs):
    """Wraps a whole sampling, of our node or of a stock one: NonFiniteError at the step that makes NaN or infinity."""
    steps = len(sigmas) - 1

    def after_step(step, x0, x, total):
        check_finite(x0, step + 1, total)
        if callback is not None:
            callback(step, x0, x, total)

    samples = executor(noise, latent_image, sampler, sigmas, denoise_mask, after_step, *args, **kwargs)
    check_finite(samples, steps, steps)
    return samples


def check(given: dict, noise: torch.Tensor, cfg: DiTConfig) -> None:
    """Raises InputError where conditioning, latent and weights do not fit together."""
    if "rp_motion" not in given:
        raise InputError(
            f"The {given['prompt_type']} CONDITIONING does not come from RealPortrait: this model reads a portrait and its "
            "motion, and no prompt. Connect both outputs of RealPortrait Conditioning or Continue Clip, not a CLIP text encoder."
        )
    maps, reference = given["rp_motion"], given["rp_reference"]
    if noise.ndim != 4 or noise.shape[1] != cfg.in_channels:
        raise InputError(
            f"The LATENT is {tuple(noise.shape)}; RealPortrait denoises (frames, {cfg.in_channels}, height / 8, width / 8). "
            "Connect the LATENT of RealPortrait Conditioning or Continue Clip."
        )
    if len(maps) != noise.shape[0]:
        raise InputError(
            f"The motion of this clip has {len(maps)} frames and the LATENT has {noise.shape[0]}. Connect the LATENT that "
            "comes with the conditioning, or cut both to the same frames."
        )
    if (maps.height, maps.width) != (8 * noise.shape[2], 8 * noise.shape[3]) or reference.shape[1:] != noise.shape[1:]:
        raise InputError(
            f"Sizes differ: the motion is for {maps.width}x{maps.height} px, the LATENT is of {8 * noise.shape[3]}x"
            f"{8 * noise.shape[2]} px, the portrait's latent of {8 * reference.shape[3]}x{8 * reference.shape[2]} px. "
            "Use the LATENT of RealPortrait Conditioning, not resized."
        )
    if maps.f.shape[1] != cfg.motion_channels:
        raise InputError(
            f"The motion maps have {maps.f.shape[1]} channels and this model reads {cfg.motion_channels}: they come from "
            "another Face Vid2vid. Load the one that belongs to the RealPortrait weights."
        )
    if cfg.reference_motion and given.get("rp_portrait_motion") is None:
        raise InputError("These weights also read the portrait's own motion map, and the CONDITIONING has none. Make it again.")


# ---- loading ----


def load(path: Path, weight_dtype: str):
    """A .safetensors file with a RealPortrait DiT -> a ModelPatcher, the value of a MODEL socket.

    Raises WeightsError for a file that is unreadable, incomplete or of another architecture.
    """
    state, metadata = read_dit(path)
    config = fitting_config(state, metadata, path)

    host = comfy.model_management
    cfg = RealPortraitConfig(config)
    cfg.optimizations["fp8"] = weight_dtype.endswith("_fast")
    device, offload = host.get_torch_device(), host.unet_offload_device()
    dtype = WEIGHT_DTYPES[weight_dtype] or host.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=cfg.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    cfg.set_inference_dtype(dtype, host.unet_manual_cast(dtype, device, cfg.supported_inference_dtypes))
    model = cfg.get_model(state).to(offload)
    model.load_model_weights(state)

    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)  # newer hosts, this one
    patcher = patcher(model, load_device=device, offload_device=offload)
    for wrapper in (refuse_non_finite, keep_known_frames):
        patcher.add_wrapper(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, wrapper)
    patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_DETACH, forget_portraits)
    return patcher


def forget_portraits(patcher, unloaded: bool) -> None:
    """Frees the portraits' K, V with the weights; the host also detaches a model (unloaded False) to load it again."""
    if unloaded:
        patcher.model.diffusion_model.references.clear()


def fitting_config(state: dict[str, torch.Tensor], metadata: dict[str, str], path: Path) -> DiTConfig:
    """The configuration of a RealPortrait DiT as `read_dit` gives it. Raises WeightsError where it is not complete."""
    try:
        config = dit_config_from_state(state, metadata)
        with torch.device("meta"):
            bare = RealPortraitDiT(config)
        load_strictly(bare, state)  # the host's loading only logs missing keys
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be used as RealPortrait weights. {error}") from error
    return config


def config_of(patcher) -> DiTConfig:
    """The configuration of a MODEL's weights. Raises InputError if the MODEL is not a RealPortrait one."""
    if not isinstance(patcher.model, RealPortraitModel):
        raise InputError(f"This MODEL is a {type(patcher.model).__name__}, not RealPortrait. Connect Load RealPortrait Model.")
    return patcher.model.model_config.dit

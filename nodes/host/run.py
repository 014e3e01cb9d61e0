"""A bridge to the running host: progress, previews, cancel, memory."""

import math
from collections.abc import Callable, Iterable

import comfy.model_management
import comfy.utils
import latent_preview
import torch

from ...realportrait_core.errors import InputError
from .model import middle_frame


class Progress:
    """A bar of `total` ticks on the running node. Every tick can end in the host's interrupt."""

    def __init__(self, total: int):
        self.total = max(total, 1)
        self._bar = comfy.utils.ProgressBar(self.total)

    def to(self, done: int, preview=None) -> None:
        """Moves the bar; preview is None or the host's ("JPEG", PIL image, largest side)."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(done, self.total, preview)


def on_node() -> Callable[[int, int], None]:
    """A callback (done, total) that moves the node's bar and ends in the host's interrupt."""
    bar = None

    def tick(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = Progress(total)
        bar.to(done)

    return tick


def preview_of_middle(model) -> Callable[[torch.Tensor], tuple | None]:
    """x0 (L,4,h,w) -> the host's preview of its middle frame, or None where previews are off."""
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    if previewer is None:
        return lambda x0: None
    return lambda x0: previewer.decode_latent_to_preview_image("JPEG", middle_frame(x0))


def loaded(patcher):
    """The network of a patcher, wholly on its load device."""
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher.model


def small_net_devices() -> tuple[torch.device, torch.device]:
    """(load, offload) device of the motion networks. MPS has no 3-D grid_sample, so there they run on the CPU."""
    load = comfy.model_management.get_torch_device()
    if comfy.model_management.is_device_mps(load):
        load = torch.device("cpu")
    return load, comfy.model_management.unet_offload_device()


def small_net_dtype(device: torch.device) -> torch.dtype:
    """The default precision of Face Vid2vid: fp16 where the host finds the device good at it, fp32 on a CPU."""
    return torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32


def finite(**numbers: float) -> None:
    """The numbers of widgets by name. Raises InputError for NaN, which passes the host's check of least and most, and infinity."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise InputError(f"{name} is {number}; it must be a finite number. What computed it, or wrote the workflow, failed.")


def one_of(options: Iterable[str], value: str, what: str) -> str:
    """The value of a menu, which the host itself does not check. Raises InputError for any other."""
    if not isinstance(value, str) or value not in options:
        raise InputError(f"{what} is {value!r:.80}; it must be one of: {', '.join(options)}.")
    return value

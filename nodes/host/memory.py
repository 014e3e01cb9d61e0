"""Out of memory in the host: other models go, and a part of the network's weights waits outside the device."""

import gc
import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import comfy.model_management
import comfy.patcher_extension

from ...realportrait_core.dit.sparing import Sparing
from ...realportrait_core.errors import InsufficientMemory
from ...realportrait_core.memory import Ladder, first_line, is_out_of_memory
from .model import config_of

T = TypeVar("T")
log = logging.getLogger(__name__)

ROOM = 4  # times the memory that the host estimates for a step, where a step did not fit


def free_others(patcher) -> str:
    """Unloads all models but this one. Returns what was done, for the log."""
    host = comfy.model_management
    kept = [loaded for loaded in host.current_loaded_models if loaded.model is not None and loaded.model.is_clone(patcher)]
    freed = host.free_memory(1e30, patcher.load_device, keep_loaded=kept)
    host.soft_empty_cache(True)
    return f"Unloaded {len(freed)} other models, and trying once more."


def freeing_others(ladder: Ladder, patcher) -> Ladder:
    """The ladder of a network's work; its last step unloads the host's other models."""
    ladder.last_resort = partial(free_others, patcher)
    return ladder


class SamplingMemory:
    """What one run of a node has learnt about the memory of its clips: `sparing`, and whether the weights have to make room."""

    def __init__(self, model):
        self.sparing = Sparing(config_of(model).clip_frames)
        self.offload = False

    def sample(self, model, work: Callable[..., T]) -> T:
        """work(model); where memory runs out, once more with a MODEL whose weights are partly kept outside the device.

        Raises InsufficientMemory.
        """
        if not self.offload:
            try:
                return work(model)
            except Exception as error:
                if not (isinstance(error, InsufficientMemory) or is_out_of_memory(error)):
                    raise
                said = first_line(error)
            self.offload = True
            log.warning("Sampling: out of memory (%s). Unloading all models, and keeping room for %d times the step.", said, ROOM)
            gc.collect()  # here, because the error's traceback held the tensors of the attempt until now
            comfy.model_management.unload_all_models()
            comfy.model_management.soft_empty_cache(True)
        try:
            return work(with_room(model))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = first_line(error)
        raise InsufficientMemory(
            f"Sampling: out of memory even with all other models unloaded ({said}). Start ComfyUI with --lowvram, close other "
            "programs that use the memory, or choose a smaller frame or a smaller weight_dtype."
        )


def with_room(model):
    """A copy of the MODEL for which the host reserves more memory beside the weights; the weights are the same."""
    roomy = model.clone()
    roomy.add_wrapper(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, reserve_more)
    return roomy


def reserve_more(executor, model, noise_shape, *args, **kwargs):
    """Wraps the host's loading before a sampling: as if the clip had ROOM times its frames."""
    return executor(model, [ROOM * noise_shape[0], *noise_shape[1:]], *args, **kwargs)

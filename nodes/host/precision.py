"""The dtype in which a MODEL computes, and the same MODEL in another."""

import torch


def compute_dtype(model) -> torch.dtype:
    """Of the activations: that of the weights, or the one into which they are cast while they are used."""
    cast = model.object_patches.get("manual_cast_dtype", model.model.model_config.manual_cast_dtype)  # ModelComputeDtype patches it
    return cast or model.model.get_dtype()


def in_dtype(model, dtype: torch.dtype):
    """The MODEL itself where it computes in this dtype, else a copy that casts each weight while it is used.

    The weights stay as they are; the host loads the MODEL itself again for its next sampling.
    """
    if dtype == compute_dtype(model):
        return model
    other = model.clone()
    other.set_model_compute_dtype(dtype)
    return other

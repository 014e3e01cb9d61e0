"""Fingerprints of MODEL and VAE by what they hold, weights and patches, so that they are the same after a restart of the host.

The host's own mark of a patched model, patches_uuid, is drawn anew whenever a LoRA is loaded.
"""

import hashlib
from collections.abc import Mapping
from enum import Enum
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

DIGITS = 16  # hexadecimal, of each fingerprint


def of_model(patcher) -> str:
    """Of a MODEL: its weights as the file has them, the patches of LoRA loaders and others, and its options.

    A patch is known by its code and by the values that it holds; one that holds what cannot be read as values, such as an open
    file, makes another fingerprint in each process.
    """
    weights = {key: (weights[0][0], *weights[1:]) for key, weights in patcher.get_key_patches().items()}
    computed_in = str(patcher.model.get_dtype()), str(patcher.model.manual_cast_dtype)
    return digest(weights, computed_in, patcher.object_patches, patcher.model_options, patcher.wrappers)


def of_vae(vae) -> str:
    """Of a VAE: its weights, and the precision in which it computes."""
    return digest(vae.first_stage_model.state_dict(), str(vae.vae_dtype))


def digest(*values: Any) -> str:
    """16 hexadecimal digits of values: numbers, texts, tensors, functions and objects, and collections of them."""
    hashed = hashlib.sha256()
    _add(hashed, values, ())
    return hashed.hexdigest()[:DIGITS]


def _add(hashed, value: Any, inside: tuple[int, ...]) -> None:
    """One value; inside: the ids of the values that it is a part of, which are not entered again."""
    kind = type(value)
    hashed.update(f"{kind.__module__}.{kind.__qualname__};".encode())
    if id(value) in inside:
        return
    inside = (*inside, id(value))
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device, Enum)):
        hashed.update(repr(value).encode())
    elif isinstance(value, torch.Tensor):
        hashed.update(f"{value.dtype} {tuple(value.shape)};".encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray):
        _add(hashed, (str(value.dtype), value.shape, value.tobytes()), inside)
    elif isinstance(value, Mapping):
        for key, one in sorted(value.items(), key=lambda item: str(item[0])):
            _add(hashed, key, inside)
            _add(hashed, one, inside)
    elif isinstance(value, (set, frozenset)):
        _add(hashed, sorted(digest(one) for one in value), inside)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _add(hashed, one, inside)
    elif isinstance(value, type):
        hashed.update(f"{value.__module__}.{value.__qualname__}".encode())
    elif isinstance(value, MethodType):
        _add(hashed, (value.__func__, value.__self__), inside)
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _add(hashed, (value.__code__, value.__defaults__, value.__kwdefaults__, cells), inside)
    elif isinstance(value, partial):
        _add(hashed, (value.func, value.args, value.keywords), inside)
    elif isinstance(value, CodeType):
        _add(hashed, (value.co_name, value.co_code, value.co_names, value.co_consts), inside)
    elif isinstance(value, torch.nn.Module):
        _add(hashed, value.state_dict(), inside)
        _add(hashed, {name: one for name, one in vars(value).items() if not name.startswith("_")}, inside)
    elif hasattr(value, "__dict__"):
        _add(hashed, vars(value), inside)
    else:
        hashed.update(repr(value).encode())

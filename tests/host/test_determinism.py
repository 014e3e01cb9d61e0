"""The same seed gives the same bytes in the host, whatever ran before. After a cancel: test_cancel.py and test_concurrency.py."""

import pytest
import tiny
import torch


@pytest.fixture
def load(pack, tmp_path):
    path = tiny.dit_file(pack, tmp_path / "tiny.safetensors")
    return lambda weight_dtype="default": pack("nodes.host.model").load(path, weight_dtype)


@pytest.fixture
def sample(pack):
    """sample(model, portrait=2, seed=7): 20 frames in two clips, guided, of the portrait with that number."""
    module, maps = pack("nodes.sample"), tiny.maps(pack, 20)
    motion_of = pack("realportrait_core.animation.mapping").PortraitMotion

    def run(model, portrait=2, steps=2, seed=7):
        motion = motion_of(maps, tiny.maps(pack, 1, seed=portrait), torch.eye(3, dtype=torch.float64), (64, 64))
        used = module.Sampling(steps, "euler_ancestral", "normal")
        return module.sample_clips(model, tiny.latent(1, seed=portrait), motion, used, seed=seed, strength=1.0, guidance=1.5)

    return run


def test_whatever_was_queued_before(load, sample):
    """A, B, A on the same networks, and after other portraits have filled the cache of K, V: as on networks just loaded."""
    wanted, used = sample(load()), load()
    assert torch.equal(sample(used), wanted)
    other = sample(used, portrait=5, seed=3)
    assert torch.equal(sample(used), wanted) and torch.equal(sample(used, portrait=5, seed=3), other)
    for portrait in (6, 8, 9):
        sample(used, portrait=portrait, steps=1)
    assert torch.equal(sample(used), wanted)


def test_after_the_model_was_unloaded_and_another_one_ran(load, sample):
    import comfy.model_management as management

    used, other = load(), load("bf16")
    wanted, others = sample(used), sample(other)
    assert not torch.equal(others, wanted)
    management.unload_all_models()
    assert torch.equal(sample(used), wanted) and torch.equal(sample(other), others) and torch.equal(sample(used), wanted)


def test_after_an_error_in_the_middle(load, sample, monkeypatch):
    wanted, used = sample(load()), load()
    network = used.model.diffusion_model
    with monkeypatch.context() as patch:
        patch.setattr(network.blocks[2], "forward", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sample(used)
    assert torch.equal(sample(used), wanted)

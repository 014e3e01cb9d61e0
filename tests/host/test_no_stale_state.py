"""Runs beside each other, from the host's cache, and with models taken away: each is what a fresh run is, to the bit."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch


@pytest.fixture(scope="module")
def files(pack):
    import line

    line.weights(pack)
    return line


@pytest.fixture
def whole(files, pack, run_node):
    return files.Line(pack, run_node)


def result(files, whole, seed: int) -> list[torch.Tensor]:
    """All that a run makes: maps, latents, frames by both ways."""
    motion = whole.motion(whole.keypoints(files.picture(1, 150, 140, seed), files.picture(18, 120, 110, seed + 50)))
    latents = whole.latents(motion, seed=seed)
    return [motion.maps.f, latents, whole.shown(latents, motion), whole.rendered(motion)]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others))


def test_models_freed_between_all_nodes(files, pack, run_node, whole):
    """As another node does that needs the memory: nothing is on the device any more when the next node begins."""
    import comfy.model_management as management

    fresh, freed = result(files, whole, 1), []

    def free() -> None:
        management.unload_all_models()
        management.soft_empty_cache(force=True)
        freed.append(len(management.current_loaded_models))

    again = result(files, files.Line(pack, run_node, between=free), 1)
    assert len(freed) == 6 and not any(freed)
    assert equal(again, fresh)


def test_cached_outputs_serve_several_nodes_and_stay_as_they_are(files, whole):
    """The host hands the same keypoints and motion to whichever node runs again."""
    keypoints = whole.keypoints(files.picture(1, 150, 140), files.picture(18, 120, 110))
    motion = whole.motion(keypoints)
    kept = keypoints.driver.expression.clone(), keypoints.feature.clone(), motion.maps.f.clone(), motion.maps.face.clone()
    latents = whole.latents(motion)
    whole.motion(keypoints, pose_gain=0.5, mode="paper-absolute")
    whole.latents(motion, seed=9, guidance=2.0)
    whole.rendered(motion)
    assert torch.equal(whole.latents(motion), latents) and torch.equal(whole.motion(keypoints).maps.f, kept[2])
    now = keypoints.driver.expression, keypoints.feature, motion.maps.f, motion.maps.face
    assert equal(list(now), list(kept))


def test_two_runs_node_by_node(files, whole):
    """The host runs one node at a time: at most, the nodes of two queue items take turns on the same loaded models."""
    alone = [result(files, whole, 1), result(files, whole, 2)]
    keypoints = [whole.keypoints(files.picture(1, 150, 140, seed), files.picture(18, 120, 110, seed + 50)) for seed in (1, 2)]
    motions = [whole.motion(each) for each in keypoints]
    latents = [whole.latents(motion, seed=seed) for motion, seed in zip(motions, (1, 2))]
    shown = [whole.shown(*each) for each in zip(latents, motions)]
    rendered = [whole.rendered(motion) for motion in motions]
    taking_turns = [list(each) for each in zip([motion.maps.f for motion in motions], latents, shown, rendered)]
    assert all(equal(some, others) for some, others in zip(taking_turns, alone))


def test_two_threads_with_the_same_networks(files, whole):
    """Our own networks hold nothing of a run: extraction, maps and rendering on one Face Vid2vid at the same time.

    The host's sampler and VAE are not made for this, and it never does it: prompts are executed by one thread.
    """

    def run(seed: int) -> torch.Tensor:
        with torch.inference_mode():  # is a thread's own
            keypoints = whole.keypoints(files.picture(1, 150, 140, seed), files.picture(9, 120, 110, seed + 50))
            return whole.rendered(whole.motion(keypoints))

    alone = [run(seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, range(4)))
    assert equal(together, alone) and not torch.equal(alone[0], alone[1])

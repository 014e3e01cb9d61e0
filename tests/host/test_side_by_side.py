"""Two runs beside each other on the same networks: each is what it is alone, to the bit. One after another: test_concurrency.py."""

from concurrent.futures import ThreadPoolExecutor

import torch


def result(files, whole, seed: int) -> list[torch.Tensor]:
    """All that a run makes: maps, latents, frames by both ways."""
    motion = whole.motion(whole.keypoints(files.picture(1, 150, 140, seed), files.picture(5, 120, 110, seed + 50)))
    latents = whole.latents(motion, seed=seed)
    return [motion.maps.f, latents, whole.shown(latents, motion), whole.rendered(motion)]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(torch.equal(a, b) for a, b in zip(some, others))


def test_two_runs_node_by_node(files, whole):
    """The host runs one node at a time: at most, the nodes of two queue items take turns on the same loaded models."""
    alone = [result(files, whole, 1), result(files, whole, 2)]
    keypoints = [whole.keypoints(files.picture(1, 150, 140, seed), files.picture(5, 120, 110, seed + 50)) for seed in (1, 2)]
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

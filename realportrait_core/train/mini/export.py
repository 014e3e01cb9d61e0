"""The pack's files, fp16, out of the recipe's results."""

import logging

from ...checkpoint import read_safetensors
from ...dit.checkpoint import load_dit, save_dit
from ...vid2vid import FaceVid2Vid
from ...vid2vid.checkpoint import save_vid2vid
from .run import DISTILLED_FILE, DIT_FILE, VID2VID_FILE, RecipeRun

log = logging.getLogger(__name__)


def export(run: RecipeRun) -> None:
    """Writes the pack's files, fp16, of the finished networks: Face Vid2vid, the DiT after its last stage, the distilled DiT."""
    parts = {"motion": run.cache / "motion.safetensors", "renderer": run.cache / "renderer.safetensors"}
    if all(path.is_file() for path in parts.values()):
        network = FaceVid2Vid(run.cfg.vid2vid)
        (moving, _), (painting, _) = (read_safetensors(parts[name]) for name in ("motion", "renderer"))
        network.load_state_dict(painting | {f"motion.{key}": value for key, value in moving.items()})
        save_vid2vid(run.out / VID2VID_FILE, network)
        log.info("wrote %s", run.out / VID2VID_FILE)
    stages = [path for path in (run.cache / "clips.safetensors", run.cache / "frames.safetensors") if path.is_file()]
    if stages:
        save_dit(run.out / DIT_FILE, load_dit(stages[0]))
        log.info("wrote %s from %s", run.out / DIT_FILE, stages[0].name)
    if (distilled := run.cache / "distilled.safetensors").is_file():
        save_dit(run.out / DISTILLED_FILE, load_dit(distilled))
        log.info("wrote %s", run.out / DISTILLED_FILE)

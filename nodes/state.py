"""Continuation states as files: an animation that goes on later, or in another workflow."""

from comfy_api.latest import io, ui

from ..realportrait_core.long.state import ContinuationState, load_state, save_state
from .host import folders, media
from .host.newer import aliases
from .sockets import State


class SaveState(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitSaveState",
            display_name="Save Continuation State",
            category="RealPortrait",
            description="Saves where an animation ends to ComfyUI's output folder: the last latents, the seed and settings, and "
            "fingerprints of weights, portrait and driving video. Resume Continuation State finds it there.",
            inputs=[
                State.Input("state", tooltip="From Animate Long Video."),
                io.String.Input(
                    "filename_prefix",
                    default="state/RealPortrait",
                    tooltip="Folder and beginning of the file's name, below the output folder. A number is added; no file is "
                    "overwritten.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="The file's name below the output folder.")],
            is_output_node=True,
            **aliases("save state", "checkpoint", "continue later"),
        )

    @classmethod
    def execute(cls, state, filename_prefix) -> io.NodeOutput:
        path, name = folders.new_output(filename_prefix)
        save_state(path, state)
        return io.NodeOutput(name)


class LoadState(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitLoadState",
            display_name="Resume Continuation State",
            category="RealPortrait",
            description="Loads where an animation ended or was broken off, for Animate Long Video to go on from there.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list(media.states()),
                    tooltip="A state that Save Continuation State saved to the output folder, or that of an unfinished run of "
                    "Animate Long Video, in realportrait_long. Press R for a new one.",
                )
            ],
            outputs=[
                State.Output(display_name="state", tooltip="For Animate Long Video."),
                io.String.Output(
                    display_name="report", tooltip="Which clip and frame come next, and with which seed and settings it was made."
                ),
            ],
            **aliases("load state", "continue", "resume run", "checkpoint"),
        )

    @classmethod
    def validate_inputs(cls, file):
        return folders.problem(lambda name: load_state(media.state_path(name)), file)

    @classmethod
    def fingerprint_inputs(cls, file):
        return folders.stamp(media.state_path(file))

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        state = load_state(media.state_path(file))
        text = described(state)
        return io.NodeOutput(state, text, ui=ui.PreviewText(text))


def described(state: ContinuationState) -> str:
    """What a state goes on with, and what it was made with."""
    settings = ", ".join(f"{name} {value}" for name, value in state.settings.items())
    weights = ", ".join(f"{name} {digits}" for name, digits in state.fingerprints.items())
    if state.frame < state.frames:
        ahead = f"{state.frame} of {state.frames} frames are done: clip {state.clip} comes next"
    else:
        ahead = f"All {state.frames} frames are done, in {state.clip} clips"
    return f"{ahead}. Seed {state.seed}; {settings}. Fingerprints: {weights}."

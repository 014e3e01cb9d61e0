"""Detects the faces of the portrait and of the driving video, and extracts their keypoints."""

import logging

import torch
from comfy_api.latest import io, ui

from ..realportrait_core.animation.extraction import extract_keypoints, in_unit
from ..realportrait_core.errors import InputError
from ..realportrait_core.face.detect import MODEL_NAME, FaceDetector
from ..realportrait_core.face.measured import Measured
from ..realportrait_core.face.track import FaceTrack, portrait_points, track
from ..realportrait_core.video.stream import VideoStream
from ..realportrait_core.video.timeline import Selection
from .host import faces, folders, images
from .host.draw import GLANCE, SIDE, SMALL_SIDE, evenly, sheet, tile
from .host.newer import advanced, aliases
from .host.run import Progress, loaded, on_node, one_of
from .sockets import Keypoints, Vid2Vid
from .stream import driving_frames

log = logging.getLogger(__name__)

FACES = {  # menu entry -> name in the core
    "largest": "largest",
    "the only one": "only",
    "1st from left": 0,
    "2nd from left": 1,
    "3rd from left": 2,
    "4th from left": 3,
}
BOX_TIP = (
    "Where the face is, as 'x, y, width, height' in pixels: forehead to chin, ear to ear. Empty: it is "
    "detected. With a box no face detector is needed."
)


def portrait_face_input() -> io.Combo.Input:
    return io.Combo.Input(
        "portrait_face",
        options=list(FACES),
        default="largest",
        tooltip="Which face of the portrait is animated. 'the only one' refuses a portrait with several.",
    )


class ExtractKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RealPortraitExtractKeypoints",
            display_name="Extract Face Motion (Keypoints)",
            category="RealPortrait",
            description="Detects the face in the portrait, tracks one face through the driving video, and extracts pose and "
            "expression of each frame. The report names the frames without a face.",
            inputs=[
                Vid2Vid.Input("vid2vid", tooltip="From Load Face Vid2vid."),
                io.Image.Input(
                    "portrait",
                    tooltip="The picture to animate, of any size; or the frames of a video, each of which is moved by the driving "
                    "frame of its number, for Render Face Vid2vid.",
                ),
                io.MultiType.Input(
                    "driver",
                    types=[io.Image, io.Video],
                    display_name="driving_video",
                    tooltip="The driving video, whose motion is transferred; any size and length. A VIDEO from Stream Driving "
                    "Video or Load Video is read from its file one frame at a time and takes no memory; frames (IMAGE) are in "
                    "memory already.",
                ),
                portrait_face_input(),
                io.Combo.Input(
                    "driver_face",
                    display_name="driving_face",
                    options=list(FACES),
                    default="largest",
                    tooltip="Which face of the driving video is tracked, chosen in its first frame. 'the only one' refuses "
                    "several.",
                ),
                io.Combo.Input(
                    "missing_face",
                    options=["hold", "interpolate", "fade", "stop"],
                    default="hold",
                    tooltip="Where the driving video shows no face: 'hold' the last pose, 'interpolate' between the "
                    "neighbours, let the motion 'fade' to none within a few frames, or 'stop' with an error that names "
                    "the frames.",
                    **advanced(),
                ),
                io.String.Input("portrait_box", default="", optional=True, tooltip=BOX_TIP, **advanced()),
                io.String.Input(
                    "driver_box",
                    display_name="driving_box",
                    default="",
                    optional=True,
                    tooltip=BOX_TIP + " One box for all frames.",
                    **advanced(),
                ),
                io.MultiType.Input(
                    "portrait_boxes",
                    types=faces.SOCKETS,
                    optional=True,
                    tooltip="The faces of the portrait as another node has found them: its boxes or, more exactly, its face "
                    "landmarks. portrait_face chooses among them; no face detector is needed.",
                ),
                io.MultiType.Input(
                    "driving_boxes",
                    types=faces.SOCKETS,
                    optional=True,
                    tooltip="The faces of the driving frames as another node has found them: boxes or, more exactly, face "
                    "landmarks, of every frame or one for all. They are followed, smoothed and filled in by missing_face like "
                    "detected ones; no face detector is needed.",
                ),
            ],
            outputs=[
                Keypoints.Output(
                    display_name="keypoints", tooltip="Keypoints and poses of the portrait and of every driving frame."
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="Portrait and driving frames with crop and face points (red where the face is missing), for at "
                    "most 32 frames.",
                ),
                io.String.Output(display_name="report", tooltip="How many frames show the face, and which do not."),
            ],
            **aliases(
                "vid2vid keypoints", "face tracking", "face crop", "live portrait cropper", "reenactment", "facial motion capture"
            ),
        )

    @classmethod
    def execute(
        cls,
        vid2vid,
        portrait,
        driver,
        portrait_face,
        driver_face,
        missing_face,
        portrait_box="",
        driver_box="",
        portrait_boxes=None,
        driving_boxes=None,
    ) -> io.NodeOutput:
        portrait, driver = images.rgb(portrait, "portrait"), driving_frames(driver)
        portrait_box, driver_box = images.box(portrait_box, "portrait_box"), images.box(driver_box, "driver_box")
        whose_portrait = FACES[one_of(FACES, portrait_face, "portrait_face")]
        whose_driver = FACES[one_of(FACES, driver_face, "driver_face")]
        refuse_both(portrait_box, portrait_boxes, "portrait_box", "portrait_boxes")
        refuse_both(driver_box, driving_boxes, "driving_box", "driving_boxes")
        portrait_given = given_faces(portrait_boxes, portrait, "portrait_boxes")
        measured = Measured(driver, "driving")
        if isinstance(driver, torch.Tensor) or len(portrait) > 1 or driving_boxes is not None:
            measured.measure(on_node())  # how many frames there are; a file is decoded once more for it
        driving_given = faces.driving_faces(driving_boxes, measured.length, *measured.size, "driving_boxes")
        detector = None
        if (portrait_box is None and portrait_given is None) or (driver_box is None and driving_given is None):
            detector = FaceDetector(folders.detector_path(MODEL_NAME))

        frames = measured.length or measured.expected  # of a video file about so many
        lengths = f"the portrait video has {len(portrait)} frames, the driving video {frames}"
        of_video = min(len(portrait), frames) > 1
        if len(portrait) > 1:
            frames = min(len(portrait), frames)
            portrait, driver = portrait[:frames], first_frames(driver, frames)
            portrait_given, driving_given = (given and given[:frames] for given in (portrait_given, driving_given))
            if not of_video:  # the portrait's first frame, with the faces of that one
                portrait_given = portrait_given and portrait_given[0]
        stages = 3 if of_video else 2
        progress = Progress(frames)

        def stage(number: int):
            ticks = progress.total
            return lambda done, total: progress.to((number * ticks + done * ticks // total) // stages)

        points = find_portrait(portrait, detector, whose_portrait, missing_face, portrait_box, portrait_given, stage(0))
        found = track(driver, detector, whose_driver, missing_face, driver_box, stage(stages - 2), driving_given)
        frames = len(found.points)
        shown = ShownFrames(driver, {*evenly(frames), *evenly(frames, GLANCE - 1)})
        keypoints = extract_keypoints(loaded(vid2vid), portrait, shown, points, found, stage(stages - 1))
        report = found.report
        if of_video:
            report += f" The portrait is a video. {points.report} Animated are {frames} frames: {lengths}."
        if frames == 1:
            report += (
                " The driving video has 1 frame: in the mode 'relative' it is its own neutral frame and nothing moves. Choose "
                "'paper-absolute' in Apply Motion to Portrait, or give a video."
            )
        if frames == 1 or found.cuts or not found.present.all():
            log.warning("%s", report)
        glance = ui.PreviewImage(at_a_glance(keypoints, portrait, shown), cls=cls)
        return io.NodeOutput(keypoints, preview(keypoints, portrait, shown), report, ui=glance)


def given_faces(boxes, portrait: torch.Tensor, what: str) -> list | None:
    """The faces of the portrait that another node found, or, of a portrait video, those of each frame."""
    if len(portrait) == 1:
        return faces.portrait_faces(boxes, *portrait.shape[1:3], what)
    return faces.driving_faces(boxes, *portrait.shape[:3], what)


def find_portrait(portrait: torch.Tensor, detector, whose, missing_face: str, box, given, callback) -> torch.Tensor | FaceTrack:
    """The face points (5, 2) px of a portrait (1, H, W, 3), or the face track of a portrait video."""
    if len(portrait) == 1:
        return portrait_points(portrait[0], detector, whose, box, given)
    return track(portrait, detector, whose, missing_face, box, callback, given, "portrait")


def refuse_both(box: torch.Tensor | None, boxes, box_name: str, boxes_name: str) -> None:
    """InputError where a typed box and connected ones contradict each other."""
    if box is not None and boxes is not None:
        raise InputError(f"{box_name} and {boxes_name} both say where the face is. Empty the text, or disconnect the other node.")


def first_frames(driver: torch.Tensor | VideoStream, frames: int) -> torch.Tensor | VideoStream:
    return driver[:frames] if isinstance(driver, torch.Tensor) else driver.part(Selection(frames=frames))


class ShownFrames:
    """Driving frames, of which those of some numbers are kept as they pass."""

    def __init__(self, frames: torch.Tensor | VideoStream, numbers: set[int]):
        self.frames, self.numbers = frames, numbers
        self._kept: dict = {}

    def __iter__(self):
        for i, frame in enumerate(self.frames):
            if i in self.numbers:
                self._kept[i] = frame
            yield frame

    def __getitem__(self, number: int) -> torch.Tensor:
        """(H, W, 3) in [0, 1]."""
        return in_unit(self._kept[number])


def preview(keypoints, portrait: torch.Tensor, driver: ShownFrames) -> torch.Tensor:
    """Portrait beside driving frame, (n, SIDE, 2 SIDE, 3), with crop and face points drawn on them."""
    left, right = found_on(keypoints, portrait, driver, evenly(len(keypoints)), SIDE)
    return torch.cat([left.expand_as(right), right], 2)


def at_a_glance(keypoints, portrait: torch.Tensor, driver: ShownFrames) -> torch.Tensor:
    """The portrait (of a video the first frame) and then driving frames, evenly spaced, on one picture (1, H, W, 3)."""
    left, right = found_on(keypoints, portrait, driver, evenly(len(keypoints), GLANCE - 1), SMALL_SIDE)
    return sheet(torch.cat([left[:1], right]))


def found_on(
    keypoints, portrait: torch.Tensor, driver: ShownFrames, frames: list[int], side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The portrait (1 or n, side, side, 3) and n driving frames (n, side, side, 3), with crop and face points drawn on them."""
    crops, points = keypoints.portrait_crop, keypoints.portrait_points
    if keypoints.of_video:
        left = [tile(portrait[i], crops[i], points[i], side=side) for i in frames]
    else:
        left = [tile(portrait[0], crops, points, side=side)]
    right = [tile(driver[i], keypoints.driver_crop, keypoints.driver_points[i], bool(keypoints.present[i]), side) for i in frames]
    return torch.stack(left), torch.stack(right)

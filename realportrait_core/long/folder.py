"""The files of a run: its finished clips, the last state, and in the end the video.

    clips/00000.mp4             the frames that clip 0 adds
    clips/00000.safetensors     the state after it, without maps and with its own figures only
    state.safetensors           the last state
    video.mp4                   all clips, once the last is finished; the folder clips is then emptied

Each is written whole or not at all, and a clip's state after its frames: wherever a process is killed, the clips up to the last
state are whole.
"""

import hashlib
import logging
import re
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..errors import InputError
from ..video.writing import write_video
from ..whole_file import remove_partial
from .segments import Sound, join_segments
from .state import ContinuationState, check_state, load_state, save_state

log = logging.getLogger(__name__)

VIDEO_FILE, STATE_FILE = "video.mp4", "state.safetensors"
CLIP_FILE = re.compile(r"(\d{5,})\.(mp4|safetensors)")
OURS = re.compile(r"video\.mp4|state\.safetensors|\d{5,}\.(mp4|safetensors)")


@dataclass(frozen=True)
class RunFolder:
    """A folder for the run that begins with the state `begin`, which has no clips before it, or those of another run."""

    path: Path
    begin: ContinuationState
    fps: float
    crf: int

    @property
    def video(self) -> Path:
        return self.path / VIDEO_FILE

    @property
    def last_state(self) -> Path:
        return self.path / STATE_FILE

    @property
    def clips(self) -> Path:
        return self.path / "clips"

    def segment(self, clip: int) -> Path:
        return self.clips / f"{clip:05d}.mp4"

    def record(self, clip: int) -> Path:
        return self.clips / f"{clip:05d}.safetensors"

    def open(self) -> ContinuationState:
        """Makes the folder, or finds out how far the run has come: the state after its last whole clip.

        Raises InputError where it cannot be made or written to, or holds another run, or a video that is not this run's.
        """
        try:
            self.clips.mkdir(parents=True, exist_ok=True)
            if not self.clips.is_dir():
                raise NotADirectoryError(f"{self.clips} is a file")
            for folder in (self.path, self.clips):  # what a killed process of this run had not finished
                remove_partial(folder, OURS.fullmatch)
        except OSError as error:
            raise InputError(f"The folder {self.path} cannot be used for the video: {error}. Choose another one.") from error
        last = self.known_state()
        if self.video.exists():
            if last is None or last.frame < last.frames:
                raise InputError(
                    f"{self.video} is there already, and not of this run: it would be overwritten. Move it, or choose "
                    "another folder."
                )
            return last
        return self.last_whole()

    def is_of_run(self) -> bool:
        """Whether the folder holds a state of this run."""
        try:
            check_state(load_state(self.last_state), self.begin.fingerprints, self.begin.settings, self.begin.seed)
        except InputError:
            return False
        return True

    def known_state(self) -> ContinuationState | None:
        """The last state, if this run has saved one. Raises InputError for that of another run."""
        if not self.last_state.exists():
            return None
        try:
            state = load_state(self.last_state)
        except InputError as error:
            aside = self.last_state.with_suffix(".damaged")
            log.warning("%s It is renamed to %s, and the run goes on from its whole clips.", error, aside.name)
            self.last_state.replace(aside)
            return None
        try:
            check_state(state, self.begin.fingerprints, self.begin.settings, self.begin.seed)
        except InputError as error:
            raise InputError(f"{self.path} holds another run. {error} To keep both, choose another folder.") from error
        return state

    def last_whole(self) -> ContinuationState:
        """The state after the last clip before which all are whole, with the figures of all."""
        done = self.begin
        while self.record(done.clip).exists():
            try:
                done = self.after(done)
            except InputError as error:
                log.warning("Clip %d is made again. %s", done.clip, error)
                break
        later = [path for path in self.clips.iterdir() if (name := CLIP_FILE.fullmatch(path.name)) and int(name[1]) >= done.clip]
        for path in later:
            path.unlink()
        if later:
            log.warning(
                "%s: %d files of clips after frame %d are not whole: they are made again.", self.clips, len(later), done.frame
            )
        return done

    def after(self, done: ContinuationState) -> ContinuationState:
        """The state after the next clip, read from the disk. Raises InputError unless that clip is whole and of this run."""
        record, segment = self.record(done.clip), self.segment(done.clip)
        state = load_state(record)
        check_state(state, self.begin.fingerprints, self.begin.settings, self.begin.seed)
        if state.clip != done.clip + 1 or not done.frame < state.frame <= state.frames:
            raise InputError(f"{record} is not of this clip: it is followed by clip {state.clip} at frame {state.frame}.")
        if not segment.is_file() or content_digits(segment) != state.segment:
            raise InputError(f"The frames of {record} are missing or changed: {segment}.")
        return replace(state, figures=[*done.figures, *state.figures])

    def add(self, frames: Tensor, done: ContinuationState) -> ContinuationState:
        """Saves a clip: the new frames (n, H, W, 3) and the state after it. Raises InputError where that cannot be."""
        number = done.clip - 1
        if not self.clips.is_dir():
            raise InputError(f"The folder {self.clips} was removed while its video was made. Run again.")
        write_video(self.segment(number), frames, self.fps, crf=self.crf)
        done = replace(done, segment=content_digits(self.segment(number)))
        save_state(self.record(number), replace(done, maps=None, figures=done.figures[-1:]))
        return done

    def keep(self, done: ContinuationState) -> None:
        """Saves the last state. Raises InputError where the folder cannot be written to."""
        save_state(self.last_state, done)

    def join(self, done: ContinuationState, sound: Sound | None, since: float) -> None:
        """Makes the video of all clips, with the sound from `since` s on. Raises InputError."""
        frames = done.frame - self.begin.frame
        heard = None if sound is None else sound.part(since, frames / self.fps)
        segments = [self.segment(clip) for clip in range(self.begin.clip, done.clip)]
        with nullcontext() if heard is None else closing(heard.pieces):
            join_segments(self.video, segments, frames, self.fps, heard)

    def clear(self, done: ContinuationState) -> None:
        """Deletes the finished clips. Other files, and a folder with others, stay."""
        for clip in range(self.begin.clip, done.clip):
            self.record(clip).unlink(missing_ok=True)
            self.segment(clip).unlink(missing_ok=True)
        if not any(self.clips.iterdir()):
            self.clips.rmdir()


def content_digits(path: Path) -> str:
    """16 hexadecimal digits of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

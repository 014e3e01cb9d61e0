"""What a renderer of long videos gives, before it is encoded."""


class Recorder:
    """A renderer that keeps what it renders."""

    def __init__(self, render):
        self.render, self.frames, self.clips = render, [], []

    def __getattr__(self, name):
        return getattr(self.render, name)

    def __call__(self, clip, motion, known):
        rendered = self.render(clip, motion, known)
        self.clips.append(clip)
        self.frames.append(rendered.frames[clip.overlap : clip.stop - clip.start])
        return rendered

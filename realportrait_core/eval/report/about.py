"""What a report says of its run, beside the figures."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class About:
    """A description of a run for the reader of its report."""

    settings: dict[str, str] = field(default_factory=dict)  # "Weights" -> "realportrait_mini.safetensors", in the reader's words
    tables: dict[str, str] = field(default_factory=dict)  # table -> what is compared in it, in a sentence
    missing: dict[str, str] = field(default_factory=dict)  # metric of COLUMNS that has no weights -> how to get them, a sentence
    failed: dict[str, str] = field(default_factory=dict)  # "TABLE/NAME" of a case without a record -> why
    clip_frames: int = 16  # of the network: `long` is reported by its clips

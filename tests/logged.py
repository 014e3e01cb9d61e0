"""What the pack has logged, and not what a library happens to say beside it."""

import logging


def said(caplog, level: int = logging.WARNING) -> list[str]:
    """The messages of the pack's own loggers, from a level on."""
    return [one.getMessage() for one in caplog.records if "realportrait" in one.name and one.levelno >= level]

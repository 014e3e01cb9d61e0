"""RealPortrait for ComfyUI. Importing this package loads nothing heavy: the nodes come with comfy_entrypoint."""

import logging

WEB_DIRECTORY = "./web"

_log = logging.getLogger(__name__)


async def comfy_entrypoint():
    """The pack's extension, for ComfyUI's loader."""
    try:
        from .nodes import RealPortraitExtension

        return RealPortraitExtension()
    except Exception:
        # The loader prints one line and no traceback.
        _log.exception("RealPortrait's nodes could not be loaded")
        raise

"""Video files: probed, decoded one frame at a time, resampled by timestamps; only the selected frames are kept.

source (bytes and container) -> decoding -> timeline (which frames) -> loading, with audio beside it.
"""

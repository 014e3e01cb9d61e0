"""Video files: probed, decoded one frame at a time, resampled by timestamps; only the selected frames are kept.

source (bytes and container) -> decoding -> timeline (which frames) -> reading, in a process of its own (apart, child) -> loading,
or stream for one frame at a time; audio beside both.
"""

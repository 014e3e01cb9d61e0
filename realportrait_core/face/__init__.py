"""Faces: detection (YuNet), tracking through a clip, and the crop that F and M read."""

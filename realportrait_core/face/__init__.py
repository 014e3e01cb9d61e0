"""Faces: detection (YuNet), tracking through a clip, and the crop for F and M."""

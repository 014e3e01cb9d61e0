"""Faces: detection, tracking and cropping."""

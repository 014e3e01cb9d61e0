"""Animations of any length in constant memory: a clip at a time from the driving video's file to the result's.

stream -> keypoints (small, kept) -> for each clip: maps, latents, frames -> a segment of the video, and the state to go on from.
"""

"""Photographs whose head is rotated in 3-D, with the exact optical flow: pairs for training, clips for evaluation."""

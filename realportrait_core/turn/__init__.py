"""Photographs turned in 3-D, with the exact flow: for training and for measuring. Nothing here knows of either."""

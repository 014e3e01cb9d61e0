"""Figures by formula: of pictures, keypoints and landmarks, without a network."""

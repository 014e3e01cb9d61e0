"""Pretrained networks that measure and are in no loss, each of a file that the user names."""

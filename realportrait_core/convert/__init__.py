"""Offline commands on weight files: public ones become .safetensors that RealPortrait loads, and any file is described.

`python -m realportrait_core.convert` runs them. No node imports this package. `pickled.py` is the only file outside training
that opens a .pth, and only for plain tensors.
"""

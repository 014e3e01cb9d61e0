"""Offline commands on weight files: public ones become .safetensors that RealPortrait loads, and any file is described.

`python -m realportrait_core.checkpoint` runs them.

No node imports this. `pickled.py` is the one place outside training that opens a .pth, and only for plain tensors.
"""

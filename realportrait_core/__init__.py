"""RealPortrait (Yang, Wei, Wang; AAAI 2025): portrait animation with a diffusion transformer.

The core runs on torch alone; `nodes/` binds it to ComfyUI.
"""

"""The paper's inference, one step a file, without ComfyUI; generate.py puts the steps together.

extraction -> driving_motion (motion files) -> retargeting -> mapping (with framing) -> rendering (over clips).
"""

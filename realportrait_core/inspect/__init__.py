"""What each stage of an animation computed, as pictures (sheets.py) and in numbers (drift.py)."""

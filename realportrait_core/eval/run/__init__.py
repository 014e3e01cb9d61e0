"""A run of the whole evaluation: its cases, their figures, and what is finished."""

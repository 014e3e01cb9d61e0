"""A clip of anybody's in figures, for the node Judge Animation."""

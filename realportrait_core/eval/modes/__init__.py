"""The modes `self`, `cross`, `photos` and `continued`: one table of our own rows, by which the bundled weights are released."""

"""A checkpoint: its names and shapes are read, its data is not, and code in it never runs."""

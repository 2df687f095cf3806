"""File formats of checkpoints: each reader takes a BoundedFile and returns a Checkpoint, without the tensors' data."""

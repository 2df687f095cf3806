"""Which network a checkpoint belongs to, read off the names and shapes of its tensors."""

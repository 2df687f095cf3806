"""The memory of one training step, or of one forward pass without gradients."""

"""What takes a run of the module on data: activations of an image, and effective receptive fields."""

"""vggscope looks into VGG networks, and any PyTorch model, and tells exactly what is there."""

__version__ = "0.1.0"

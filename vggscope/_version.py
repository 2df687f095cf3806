"""The version, which hatch reads as text when it builds the package."""

__version__ = "0.1.0"

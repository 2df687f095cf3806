"""Compares vggscope's figures with those of other tools and of papers: one file each, and `verification`."""

"""Our numbers asked of other people's code and papers: one file for each witness, and `verification` that hears them
all.
"""

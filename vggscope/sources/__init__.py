"""From a MODEL word to a Network.

Each kind of word is one file, listed in `resolve.SOURCES`. No source imports another; `resolve`, `reference` and
`catalogue` alone know them.
"""

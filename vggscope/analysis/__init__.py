"""Analyses: pure functions of a Network that return frozen results."""

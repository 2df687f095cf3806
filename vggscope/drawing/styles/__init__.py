"""One file for each style: a function from what is to be drawn to a Picture."""

"""One file for each format: a function from a Picture to the file's contents."""

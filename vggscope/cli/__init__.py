"""The command line: parse, call, write. One file for each command; only `app` knows them all."""

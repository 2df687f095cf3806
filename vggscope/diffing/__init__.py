"""Where two networks differ, what each difference does, and whether they still compute the same function."""

"""A file for each format, with a function that turns a Picture into the file's contents."""


def number(value: float) -> str:
    """A length with at most two decimals.

    >>> number(12.50), number(3.0)
    ('12.5', '3')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")

"""The Content-Security-Policy of a page that holds all that it needs."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy of a page with this style and this script: it can load no address and run no
    other code.
    """
    rules = {
        "default-src": "'none'",
        "script-src": source_hash(script),
        "style-src": source_hash(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def source_hash(text: str) -> str:
    """Return how a policy names a script or a style that it allows."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

"""Networks of Lua Torch."""

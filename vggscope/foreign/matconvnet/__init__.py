"""Networks of MatConvNet."""

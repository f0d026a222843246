"""/v1: the market for programs."""

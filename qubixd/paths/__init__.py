"""Paths: how two nodes reach each other directly, what stands in the way, and the punching of holes."""

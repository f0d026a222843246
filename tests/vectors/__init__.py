"""Golden vectors: bytes that must never change, and what makes new ones."""

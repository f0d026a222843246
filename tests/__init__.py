"""Tests: support/ (helpers), unit/, property/, integration/ (real parts), bench/ (figures)."""

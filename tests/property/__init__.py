"""Hypothesis tests, mostly stateful."""

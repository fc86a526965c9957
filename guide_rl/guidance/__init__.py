"""Guidance: written by a teacher or by the policy itself, and checked for leaks of the answer."""

"""Runs programs that nobody trusts: no network, no files of ours, hard limits; what they say is data (docs/sandbox.md)."""

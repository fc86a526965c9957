"""Groups -> a better policy: local (one process, one device), sft (worked solutions)."""

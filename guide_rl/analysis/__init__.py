"""Run folders -> figures. Never imports torch."""

"""What verl needs to train on a machine without accelerator, for tests: a platform, engines, a rollout server, settings.

Loaded into every process by `VERL_USE_EXTERNAL_MODULES`; `settings` says how.
"""

"""verl's entry point `verl.plugins`: loaded by every process that imports verl, so by all workers of a cluster."""

from guide_rl.trainers.verl.private import patch_worker

patch_worker()

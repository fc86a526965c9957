"""What this process may spend on one grading; workers set it when they start."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one grading."""

    timeout_s: float = 5.0
    """Seconds."""
    memory_mb: int = 2048
    """MiB of address space."""
    sandboxed: bool = True
    """Whether model-written code needs bubblewrap around it."""


current = Limits()
"""Of this process."""

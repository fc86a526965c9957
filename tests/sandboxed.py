"""What tests that run code in the sandbox share."""

import pytest

from guide_rl.graders import unit_tests
from guide_rl.graders.sandbox import bubblewrap
from guide_rl.graders.setup_error import GraderSetupError


def why_no_sandbox() -> str:
    """The reason why no sandbox starts on this machine; "" where one does."""
    try:
        bubblewrap.check()
    except GraderSetupError as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(why_no_sandbox()), reason=why_no_sandbox() or "there is one")


def close_sandboxes() -> None:
    """End the sandboxes of this process."""
    for sandbox in unit_tests.sandboxes():
        sandbox.close()
    unit_tests.sandboxes.cache_clear()

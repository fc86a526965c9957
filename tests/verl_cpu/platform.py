"""The platform "cpu" of verl: gloo, and one logical Ray GPU a rank (`ray.init(num_gpus=N)`).

Imported from within `import verl`: nothing of verl but its platforms may be imported here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import torch.distributed
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _DeviceModule(ModuleType):
    """`torch.cpu` and the functions of `torch.cuda` that verl calls besides: no memory to count, the CPU's random state."""

    def __init__(self) -> None:
        super().__init__("verl_cpu_device")
        vars(self).update({name: value for name, value in vars(torch.cpu).items() if not name.startswith("__")})
        for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
            setattr(self, name, lambda *_, **__: 0)
        for name in ("empty_cache", "ipc_collect", "manual_seed_all", "reset_peak_memory_stats", "set_device"):
            setattr(self, name, lambda *_, **__: None)

    @staticmethod
    def is_available() -> bool:
        """False, so that verl leaves its memory tools alone."""
        return False

    @staticmethod
    def mem_get_info(*_: Any) -> tuple[int, int]:
        """Free and total bytes of a device that has none."""
        return 0, 0

    @staticmethod
    def get_device_name(*_: Any) -> str:
        """A name for reports."""
        return "CPU"

    @staticmethod
    def get_rng_state(*_: Any) -> torch.Tensor:
        """The state of torch's own generator."""
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, *_: Any) -> None:
        """Set it."""
        torch.set_rng_state(state)


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """Chosen by `VERL_PLATFORM=cpu`, never detected."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DeviceModule()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False

    def current_device(self) -> Any:
        """The device itself: verl hands this to `.to()`, where a number would mean a CUDA device."""
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        """Verl's resource pools count only GPU and NPU."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


_init_process_group = torch.distributed.init_process_group


def _init_process_group_once_a_device(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
    """verl writes "cpu:gloo,<device>:<backend>", here "cpu:gloo,cpu:gloo", which torch refuses; no hook of verl helps."""
    _init_process_group(backend and ",".join(dict.fromkeys(backend.split(","))), *args, **kwargs)


torch.distributed.init_process_group = _init_process_group_once_a_device

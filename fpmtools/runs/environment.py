"""The software and the hardware that a number was measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fpmtools

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "numpy", "scipy", "matplotlib", "tifffile")


def versions() -> dict[str, str]:
    """Versions of fpmtools, Python, the system and the packages that decide numbers or files."""
    about = {"fpmtools": fpmtools.__version__, "python": platform.python_version(), "system": platform.platform()}
    return about | {name: metadata.version(name) for name in PACKAGES}


def hardware(device: torch.device) -> dict[str, Any]:
    """Processor, cores that this process may use, memory in bytes, threads of torch, and the device's name."""
    import torch

    about: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": _cpu_model(),
    }
    if device.type == "cuda":
        about["device_name"] = torch.cuda.get_device_name(device)
        about["device_memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
        about["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return about


def usable_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None

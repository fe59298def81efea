"""Memory: how much is available and in use, and whether glibc keeps memory that was freed."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

from .backend import pool_memory


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, within container limits; None: unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        available = int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):  # not Linux
        return None
    return min([available, *_container_memory(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _container_memory(own: Path, root: Path) -> list[int]:
    """Bytes remaining in each limited control group of this process and above.

    Both version 2 and, under memory/, version 1 of cgroups.
    """
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    remaining = []
    for number, controllers, path in entries:
        if number == "0":
            base, limit, used, cached = root, "memory.max", "memory.current", ("file", "shmem")
        elif "memory" in controllers.split(","):
            base, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = ("total_cache", "total_shmem")
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder != base and base not in folder.parents:
                break
            try:
                most, now = (int((folder / name).read_text()) for name in (limit, used))
                lines = (folder / "memory.stat").read_text().splitlines()
                counts = dict(line.split() for line in lines if line)
                cache, shared = (int(counts.get(name, 0)) for name in cached)
            except (OSError, ValueError):  # the group is not visible here, or "max": no limit
                continue
            remaining.append(most - now + cache - shared)  # the cache is reclaimed when needed
    return remaining


def memory_use(device: str = "cpu") -> dict[str, int]:
    """Bytes in use by this process; what the platform does not tell is absent.

    memory          resident now (Linux)
    memory_peak     the most that was resident so far (Linux, macOS)
    device_memory   of arrays on `device`, if that is a GPU; device_memory_reserved: of its pool,
                    which keeps freed memory and so is its peak
    """
    pool = pool_memory(device)
    found = _resident()
    if pool:
        found |= {"device_memory": pool["used"], "device_memory_reserved": pool["reserved"]}
    return found


def _resident() -> dict[str, int]:
    try:
        with open("/proc/self/status", "rb") as file:  # about 30 microseconds
            fields = dict(line.split(b":", 1) for line in file if line.startswith(b"Vm"))
        names = {"memory": b"VmRSS", "memory_peak": b"VmHWM"}
        return {name: int(fields[field].split()[0]) * 1024 for name, field in names.items()}
    except (OSError, KeyError, ValueError):  # not Linux
        pass
    if sys.platform != "darwin":
        return {}
    import resource

    return {"memory_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}  # bytes on macOS


def check_memory(needed: int, what: str) -> None:
    """MemoryError, rather than being killed, if `what` needs more bytes than are available."""
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"{what}: expected {needed} bytes ({needed / 2**30:.1f} GiB) of memory, "
            f"got {available} bytes ({available / 2**30:.1f} GiB)"
        )


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory rather than return it to the system and fault it in again.

    A training step allocates the same large arrays over and over. By default each one comes as
    fresh pages, and clearing those costs more than much of the arithmetic. All threads share one
    arena: with separate arenas a thread could not reuse memory freed by others, and blocks above
    64 MB would still be fresh pages. Call it once per process, before threads start. No effect
    without glibc or with TINYPLM_KEEP_MEMORY=0 in the environment. Returns whether it took effect.
    """
    if not sys.platform.startswith("linux") or os.environ.get("TINYPLM_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of mallopt(3)
    settings = {-3: 1 << 30, -1: (1 << 31) - 1, -8: 1}
    return all([mallopt(name, value) for name, value in settings.items()])


def give_back_freed_memory() -> None:
    """Return freed memory that glibc keeps to the system, once something large is gone."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)

"""What this machine has for a training."""

import os
from dataclasses import dataclass

from cluster.memory import memory_bytes


@dataclass(frozen=True)
class Hardware:
    """Cores, memory and GPUs that this process may use."""

    cores: int
    memory_bytes: int | None
    """Memory of the machine, or of its container; None if the system does not report it."""
    gpus: int
    gpu_memory_bytes: int
    """Memory of the smallest GPU; 0 without one."""

    def __str__(self) -> str:
        memory = f", {self.memory_bytes / 1e9:.0f} GB of memory" if self.memory_bytes else ""
        gpus = f", {self.gpus} GPU{'s' * (self.gpus > 1)} of {self.gpu_memory_bytes / 1e9:.0f} GB" if self.gpus else ""
        return f"{self.cores} core{'s' * (self.cores > 1)}{memory}{gpus}"


def this_machine() -> Hardware:
    """Return what this machine has."""
    import torch

    gpus = torch.cuda.device_count()
    memory = min((torch.cuda.get_device_properties(number).total_memory for number in range(gpus)), default=0)
    # The total memory: what is free now would give another recipe at every call.
    return Hardware(len(os.sched_getaffinity(0)), memory_bytes(), gpus, memory)

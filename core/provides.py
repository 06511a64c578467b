"""Features of this host that techniques and runtimes may require. Loads torch."""

from core.measure.hardware import cpu_features
from core.runtimes.catalogue import offered_runtimes


def provides(device: str) -> list[str]:
    """Features for a run on `device` (cpu or gpu): the device, CPU features, and the requirements of runtimes."""
    of_runtimes = {need for runtime in offered_runtimes().values() for need in runtime.provided(device)}
    return list(dict.fromkeys([device, *(["cuda"] if device == "gpu" else []), *cpu_features(), *sorted(of_runtimes)]))

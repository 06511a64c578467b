"""Energy from folders and objects that stand for the hardware: this has not been seen by a GPU."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from core.measure import energy, latency
from core.measure.energy import Counter, Meter, cpu_meter, energy_mj, gpu_meter
from core.measure.work import Work
from tests.core.measure.test_latency import CONDITIONS, Language, QuietWatch, eager
from tests.factories import latency as row

CPU = torch.device("cpu")


class Powercap:
    """The kernel's folder, every zone with its counter in microjoules."""

    def __init__(self, folder):
        self.folder = folder

    def zone(self, zone, name, energy_uj, range_uj=1_000_000):
        made = self.folder / zone
        made.mkdir(exist_ok=True)
        (made / "name").write_text(f"{name}\n")
        (made / "energy_uj").write_text(f"{energy_uj}\n")
        (made / "max_energy_range_uj").write_text(f"{range_uj}\n")


@pytest.fixture
def powercap(tmp_path):
    return Powercap(tmp_path)


def test_packages_and_their_memory_are_added_and_what_lies_inside_or_around_them_is_not(powercap):
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:1": "package-1",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for zone, name in zones.items():
        powercap.zone(zone, name, 100)
    used = cpu_meter(powercap.folder).start()
    for index, (zone, name) in enumerate(zones.items()):
        powercap.zone(zone, name, 100 + 10**index * 1000)
    assert used() == pytest.approx((1 + 10 + 1000) * 1e-3)


def test_a_counter_that_began_again_from_zero_is_made_whole(powercap):
    powercap.zone("intel-rapl:0", "package-0", 999_000)
    used = cpu_meter(powercap.folder).start()
    powercap.zone("intel-rapl:0", "package-0", 4_000)
    assert used() == pytest.approx(0.005)


def test_without_counters_that_can_be_read_there_is_no_meter(powercap):
    assert cpu_meter(powercap.folder / "nowhere") is None
    powercap.zone("intel-rapl:0", "psys", 1)
    assert cpu_meter(powercap.folder) is None
    powercap.zone("intel-rapl:0", "package-0", 1)
    assert cpu_meter(powercap.folder) is not None
    powercap.zone("intel-rapl:1", "package-1", 1)
    (powercap.folder / "intel-rapl:1" / "energy_uj").unlink()
    (powercap.folder / "intel-rapl:1" / "energy_uj").mkdir()  # as unreadable for root as for anybody
    assert cpu_meter(powercap.folder) is None


class Nvml(SimpleNamespace):
    """NVML with one GPU, whose counter is in millijoules."""

    class NVMLError(Exception):
        """What pynvml raises."""

    uuid = "GPU-1234"
    used_mj = 5_000

    def nvmlInit(self):
        """Nothing to start."""

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != self.uuid:
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        assert handle == "handle"
        if self.used_mj is None:
            raise self.NVMLError("Not Supported")
        return self.used_mj


def test_a_gpu_is_found_by_its_uuid_and_counts_in_joules():
    nvml = Nvml()
    used = gpu_meter(nvml, "1234").start()
    nvml.used_mj = 7_500
    assert used() == 2.5
    assert gpu_meter(nvml, "GPU-1234") is not None


def test_a_gpu_that_does_not_count_has_no_meter():
    assert gpu_meter(Nvml(used_mj=None), "1234") is None
    assert gpu_meter(Nvml(), "5678") is None


class Machine:
    """Uses 3 J with every call and 100 J with every preparation."""

    def __init__(self, joules=3.0):
        self.used, self.calls, self.joules = 0.0, 0, joules

    def call(self):
        self.used += self.joules
        self.calls += 1

    def prepare(self):
        self.used += 100.0

    @property
    def meter(self):
        return Meter((Counter(lambda: self.used),))


def test_energy_is_the_mean_over_half_a_second_of_calls():
    machine = Machine()
    assert energy_mj(machine.meter, Work(machine.call, CPU), call_ms=50.0) == 3000
    assert machine.calls == 10


def test_preparations_are_not_counted():
    machine = Machine()
    work = Work(machine.call, CPU, prepare=machine.prepare, n_calls=4)
    assert energy_mj(machine.meter, work, call_ms=50.0) == 3000
    assert machine.calls == 12  # the first multiple of 4 from 10 on


def test_counters_that_stand_still_tell_nothing():
    machine = Machine(joules=0.0)
    assert energy_mj(machine.meter, Work(machine.call, CPU), call_ms=500.0) is None


def test_each_phase_has_the_energy_of_the_stage_and_of_its_reference(monkeypatch):
    monkeypatch.setattr(latency, "ContentionWatch", QuietWatch)
    monkeypatch.setattr(energy, "BURST_SECONDS", 0.0)
    machine = Machine()

    class Using(Language):
        def __init__(self, joules):
            super().__init__()
            self.joules = joules

        def forward(self, input_ids, cache=None):
            machine.used += self.joules
            return super().forward(input_ids, cache)

    batch = {"input_ids": torch.ones(2, 10, dtype=torch.long)}
    runners = [eager(model, CPU, torch.float32, batch) for model in (Using(2.0), Using(5.0))]
    for found in latency.measure(*runners, batch, CONDITIONS, language=True, meter=machine.meter):
        assert (found.energy_mj, found.reference_energy_mj) == (2000, 5000)


def test_a_disturbed_row_has_no_energy(monkeypatch):
    machine = Machine()
    work = Work(machine.call, CPU)
    monkeypatch.setattr(latency, "ContentionWatch", QuietWatch)
    assert latency._with_energy(row(), machine.meter, work, None).energy_mj == 3000
    disturbed = row(disturbed=True)
    assert latency._with_energy(disturbed, machine.meter, work, None) == disturbed
    monkeypatch.setattr(QuietWatch, "shares", iter([0.5]))
    assert latency._with_energy(row(), machine.meter, work, None) == replace(row(), energy_mj=None)

"""Which sensors there are: a new kind is a module of its own and a line here."""

from collections.abc import Sequence
from pathlib import Path

from edgebit.daemon.config.sections import PowerConfig, SensorsConfig
from edgebit.daemon.sensors.battery import Battery
from edgebit.daemon.sensors.battery_power import BatteryPower
from edgebit.daemon.sensors.clock import Clock
from edgebit.daemon.sensors.device_files import DeviceFiles
from edgebit.daemon.sensors.disk import Disk
from edgebit.daemon.sensors.energy_ledger import EnergyLedger
from edgebit.daemon.sensors.fan import Fan
from edgebit.daemon.sensors.firmware import Firmware
from edgebit.daemon.sensors.ina import InaPower
from edgebit.daemon.sensors.load import Load
from edgebit.daemon.sensors.memory import Memory
from edgebit.daemon.sensors.pmic import PmicPower
from edgebit.daemon.sensors.power import Correction, Power, PowerSource
from edgebit.daemon.sensors.pressure import Pressure
from edgebit.daemon.sensors.rapl import RaplPower
from edgebit.daemon.sensors.sampler import Sampler, Sensor
from edgebit.daemon.sensors.serial_meter import SerialMeter
from edgebit.daemon.sensors.thermal import Thermal
from edgebit.daemon.sensors.throttling import Throttling

_GAP_INTERVALS = 3  # samples of power further apart have a gap between them


def sensors_of(files: DeviceFiles, config: SensorsConfig, state_dir: Path) -> list[Sensor]:
    """All kinds; which of them this device has shows when they are read."""
    firmware = Firmware(files, limit_s=config.command_s)
    return [
        Thermal(files),
        Throttling(files, firmware),
        Clock(files, firmware),
        Fan(files),
        Memory(files),
        Pressure(files),
        Load(files),
        Disk(state_dir),
        Battery(files),
    ]


def power_of(files: DeviceFiles, config: PowerConfig, command_s: float) -> Power:
    """The power sources that the configuration allows, best first."""
    calibrated = bool(config.calibration)
    sources: Sequence[PowerSource] = [
        SerialMeter(config.port, config.meter, config.baud),
        InaPower(files, config.device),
        BatteryPower(files),
        RaplPower(files),
        PmicPower(files, calibrated=calibrated, limit_s=command_s),
    ]
    if config.source != "auto":
        sources = [source for source in sources if source.kind == config.source]
    error = config.error or None
    return Power(sources, Correction.through(config.calibration, error) if calibrated else None, error=error)


def sampler_of(files: DeviceFiles, sensors: SensorsConfig, power: PowerConfig, state_dir: Path) -> Sampler:
    """All of them together, with the ledger of what work draws."""
    return Sampler(
        sensors_of(files, sensors, state_dir),
        power_of(files, power, sensors.command_s),
        EnergyLedger(_GAP_INTERVALS * sensors.interval_s),
        interval_s=sensors.interval_s,
        busy_interval_s=power.interval_s,
    )

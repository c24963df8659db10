"""Which alerts there are: the thresholds of [alerts] as rules. 0 switches a level off."""

from edgebit.daemon.config.sections import AlertsConfig
from edgebit.daemon.monitoring.alerts import Rule, Severity

_SEVERITIES: tuple[Severity, Severity] = ("warning", "critical")
_CPU_TIMES = 10  # as long as others must the CPU be busy: that is what it is for


def rules_of(config: AlertsConfig) -> tuple[Rule, ...]:
    """The rules of a configuration, and those that have no threshold to choose."""
    raise_s, clear_s = config.raise_s, config.clear_s

    def levels(
        name: str,
        figure: str,
        thresholds: tuple[float, float],
        margin: float | None = None,
        *,
        below: bool = False,
        unknown_clears: bool = False,
        raise_s: float = raise_s,
    ) -> list[Rule]:
        """A rule for each threshold above 0; without a margin it is a tenth of the threshold."""
        return [
            Rule(
                name=name,
                figure=figure,
                severity=severity,
                threshold=threshold,
                margin=threshold / 10 if margin is None else margin,
                below=below,
                raise_s=raise_s,
                clear_s=clear_s,
                unknown_clears=unknown_clears,
            )
            for severity, threshold in zip(_SEVERITIES, thresholds, strict=True)
            if threshold > 0
        ]

    def fact(name: str, figure: str, severity: Severity, clear_s: float = 0.0, raise_s: float = 0.0) -> Rule:
        """A figure that is 0 while all is well: anything else is told, and most at once."""
        return Rule(
            name=name, figure=figure, severity=severity, threshold=1, margin=0.5, raise_s=raise_s, clear_s=clear_s
        )

    memory = (config.memory_warning_percent, config.memory_critical_percent)
    cpu = (config.cpu_warning_percent, config.cpu_critical_percent)
    errors = (config.errors_warning_percent / 100, config.errors_critical_percent / 100)
    latency = (config.latency_warning_ms, config.latency_critical_ms)
    days = config.certificate_warning_days
    certificate = (days, min(days, 1.0))
    return (
        *levels("memory", "memory_percent", memory, 3),
        *levels("cpu", "cpu_busy_percent", cpu, 10, raise_s=_CPU_TIMES * raise_s),
        *levels(
            "speed", "tok_s", (config.speed_warning_tok_s, config.speed_critical_tok_s), below=True, unknown_clears=True
        ),
        *levels("errors", "error_rate", errors, 0.02, unknown_clears=True),
        *levels("latency", "latency_p95_ms", latency, unknown_clears=True),
        *levels("heat", "t_soc", (config.heat_warning_c, config.heat_critical_c), 3),
        *levels("disk", "disk_free_mib", (config.disk_warning_mib, config.disk_critical_mib), below=True),
        *levels("certificate", "certificate_days", certificate, 0, below=True, raise_s=0.0),
        fact("undervoltage", "undervoltage", "warning", clear_s),
        fact("sensor", "sensors_lost", "warning", clear_s, raise_s),  # a meter that hiccups is none
        fact("storage", "storage_fault", "critical", clear_s),
        fact("history", "history_fault", "info"),
        fact("probe", "probe_fault", "critical"),
    )

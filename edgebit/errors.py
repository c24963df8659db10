"""What can go wrong that a user can mend: every error edgebit raises on purpose, with the exit code it ends in.

A message says what is wrong, where, and how to mend it. Anything that is not an EdgebitError is a bug of ours.
"""


class EdgebitError(Exception):
    """Something that the user can mend."""

    exit_code = 1  # 2 is the command line's own: a wrong option or argument


class BundleError(EdgebitError):
    """A bundle or model file is damaged, unsigned, or made for another device."""

    exit_code = 3


class CheckpointError(EdgebitError):
    """A checkpoint is incomplete, damaged, or of a kind edgebit does not know."""

    exit_code = 4


class TokenizerError(CheckpointError):
    """A tokenizer or chat template cannot be carried over exactly."""


class TargetError(EdgebitError):
    """A target's description is wrong, or there is none of that name."""

    exit_code = 5


class BuildError(EdgebitError):
    """A toolchain is missing or failed, or an artifact it made does not hold what the target promises."""

    exit_code = 6


class TransportError(EdgebitError):
    """A device cannot be reached, or a command or copy on it failed."""

    exit_code = 7


class DeployError(EdgebitError):
    """A bundle cannot be put on the device, or did not answer there and was taken back."""

    exit_code = 8


class EngineError(EdgebitError):
    """The native library is missing or refused: the wrong build, a full context, too little memory."""

    exit_code = 9


class BrokerError(EdgebitError):
    """The MQTT broker cannot be reached or refused us."""

    exit_code = 10


class DeviceError(EdgebitError):
    """The device answered a request with an error."""

    exit_code = 11


class NoAnswerError(EdgebitError):
    """No answer came in time."""

    exit_code = 12


class ConfigError(EdgebitError):
    """A configuration file has a wrong or unknown key."""

    exit_code = 13


class PeerError(EdgebitError):
    """A program that edgebit is measured against is missing, failed, or printed what cannot be read."""

    exit_code = 15  # 14 is edgebit-run's, for a golden probe that differs


class KeyFileError(EdgebitError):
    """A key that signs bundles is missing, damaged or locked, or its file may be read by others."""

    exit_code = 16


class SensorError(EdgebitError):
    """A sensor that was asked for cannot be read, or does not tell enough."""

    exit_code = 17


class ExportError(EdgebitError):
    """A model cannot be written in the format that was asked for, or not there."""

    exit_code = 18


class OutputError(EdgebitError):
    """A file cannot be written: one is there already, it would replace what is read, or the disk is full."""

    exit_code = 19


class OnnxError(EdgebitError):
    """A folder of the ONNX variant cannot run: ONNX Runtime is missing or too old, or files are damaged."""

    exit_code = 20


class TrainError(EdgebitError):
    """A model cannot be trained: a package is missing, the data or settings are wrong, or the loss is no number."""

    exit_code = 21


class SchemaError(EdgebitError):
    """A JSON Schema that answers cannot be held to: a keyword that is not supported, or more than a device can bear."""

    exit_code = 22

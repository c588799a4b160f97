"""Every error Storeguard raises on purpose.

    StoreguardError
    ├── ConfigError (ValueError)         a configuration key is wrong
    ├── SourceError (OSError)            a camera or video cannot be opened, read or decoded
    │   ├── SourceTimeoutError (TimeoutError)    nothing arrived within the deadline
    │   └── EmptySourceError                 the stream holds no usable video frame
    ├── ModelError (ValueError)              a model file is unreadable or unfit
    │   └── ModelLayoutError                 its outputs fit no known layout; lists the shapes seen
    ├── BackendUnavailableError (RuntimeError)   the chosen inference backend cannot run here
    ├── OverloadedError (RuntimeError)   a bounded queue is full and refused the work
    ├── JournalError (OSError)               the local event journal cannot be read or written
    ├── StoreError (ConnectionError)         the event store is unreachable or refuses writes
    ├── StorageError (OSError)               object storage cannot be reached or written
    ├── RecordingError (OSError)             a clip cannot be written or is not there
    ├── QueryError (ValueError)              a query parameter is out of range
    ├── CheckpointError (ValueError)     a saved state cannot be read, or belongs elsewhere
    ├── NotFoundError (LookupError)          no such camera, event or clip
    ├── DatasetError (ValueError)        training or evaluation data is missing or malformed
    └── TrainingDivergedError (ArithmeticError)  a loss became infinite or not a number

Messages name what was expected, what was found and, where there is one, the camera's id.
"""

from __future__ import annotations


class StoreguardError(Exception):
    """Base of all errors raised on purpose by Storeguard."""


class ConfigError(StoreguardError, ValueError):
    """A configuration file or value is wrong."""


class SourceError(StoreguardError, OSError):
    """A camera or video file cannot be opened, read or decoded."""


class SourceTimeoutError(SourceError, TimeoutError):
    """A source sent nothing within its deadline."""


class EmptySourceError(SourceError):
    """A source was opened but holds no usable video frame."""


class ModelError(StoreguardError, ValueError):
    """A model file is unreadable or does not fit its use."""


class ModelLayoutError(ModelError):
    """A model's outputs fit no known detector layout."""


class BackendUnavailableError(StoreguardError, RuntimeError):
    """The chosen inference backend cannot run on this machine."""


class OverloadedError(StoreguardError, RuntimeError):
    """A bounded queue is full and refused the work."""


class JournalError(StoreguardError, OSError):
    """The local event journal cannot be read or written."""


class StoreError(StoreguardError, ConnectionError):
    """The event store is unreachable or refuses writes."""


class StorageError(StoreguardError, OSError):
    """Object storage cannot be reached or written."""


class RecordingError(StoreguardError, OSError):
    """A clip cannot be written or is not there."""


class QueryError(StoreguardError, ValueError):
    """A query parameter is out of range."""


class CheckpointError(StoreguardError, ValueError):
    """A saved state cannot be read or belongs to something else."""


class NotFoundError(StoreguardError, LookupError):
    """There is no such camera, event or clip."""


class DatasetError(StoreguardError, ValueError):
    """Training or evaluation data is missing or malformed."""


class TrainingDivergedError(StoreguardError, ArithmeticError):
    """A training's loss became infinite or not a number."""

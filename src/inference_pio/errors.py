"""Every error that Inference-PIO raises on purpose.

    InferencePIOError                 exit code 1
    ├── UsageError                    2   a value the caller gave is wrong (also a ValueError)
    │   ├── ConfigError               2   a configuration key or value is wrong
    │   ├── SamplingError             2   a sampling value is wrong
    │   ├── ContextLengthError        2   prompt and answer do not fit the context
    │   └── ImageError                2   an image is malformed, too large or not where it should be
    ├── ModelFileError                3   a model file cannot be used: where, what, hint
    │   ├── UnsafeWeightsError        3   pickle-based weights
    │   ├── CheckpointMismatch        3   names or shapes of checkpoint and model differ
    │   ├── TokenizerError            3   tokenizer missing or unusable
    │   ├── ChatTemplateError         3   chat template missing or failing
    │   └── UnsupportedArchitecture   3   no plugin for it
    ├── UnavailableError              4   something outside is missing: model name, network, disk space
    │   ├── ModelNotFound             4
    │   └── DownloadError             4
    ├── ResourceError                 5   this machine or a limit does not allow it (with the arithmetic)
    ├── PluginError                   6   a plugin is unknown, incompatible or collides
    └── GenerationError               7   one request failed; others go on
        ├── NonFiniteLogits           7
        └── EngineClosed              7

One line, the cause first, then the way out. The command line prints `str(error)` and exits with `exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_MOST_BITS, _MOST_SHOWN = 128, 40


class InferencePIOError(Exception):
    """Root of the tree; `exit_code` is what the command line exits with."""

    exit_code = 1

    def __str__(self) -> str:
        """One line: control characters of what strangers wrote, and bytes that are not UTF-8, become escapes."""
        return one_line(super().__str__())


class UsageError(InferencePIOError, ValueError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class SamplingError(UsageError):
    pass


class ContextLengthError(UsageError):
    pass


class ImageError(UsageError):
    """`where: what`."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


class ModelFileError(InferencePIOError):
    """`path: where (byte N): what (hint)`, each of them shortened in the middle where a file makes it long."""

    exit_code = 3

    def __init__(
        self, path: str | Path, what: str, *, where: str = "", byte: int | None = None, hint: str = ""
    ) -> None:
        self.path, self.what, self.where, self.byte, self.hint = str(path), what, where, byte, hint
        place = _short(where, 200) + (f" (byte {byte})" if byte is not None else "")
        message = ": ".join(part for part in (str(path), place.strip(), _short(what, 1200)) if part)
        super().__init__(f"{message} ({hint})" if hint else message)


class UnsafeWeightsError(ModelFileError):
    pass


class TokenizerError(ModelFileError):
    pass


class ChatTemplateError(ModelFileError):
    pass


class CheckpointMismatch(ModelFileError):
    """Checkpoint and model disagree; both sides are listed, five names each at most."""

    def __init__(
        self,
        path: str | Path,
        *,
        missing: Sequence[str] = (),
        unused: Sequence[str] = (),
        wrong_shape: Sequence[str] = (),
    ) -> None:
        self.missing, self.unused, self.wrong_shape = tuple(missing), tuple(unused), tuple(wrong_shape)
        parts = [
            f"{len(names)} {label}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
            for label, names in (
                ("missing", self.missing),
                ("unused", self.unused),
                ("of another shape", self.wrong_shape),
            )
            if names
        ]
        super().__init__(path, "; ".join(parts), where="tensors do not match the model")


class UnsupportedArchitecture(ModelFileError):
    pass


class UnavailableError(InferencePIOError):
    exit_code = 4


class ModelNotFound(UnavailableError):
    pass


class DownloadError(UnavailableError):
    pass


class ResourceError(InferencePIOError):
    exit_code = 5


class PluginError(InferencePIOError):
    exit_code = 6


class GenerationError(InferencePIOError):
    exit_code = 7


class NonFiniteLogits(GenerationError):
    pass


class EngineClosed(GenerationError):
    pass


def _short(text: str, most: int) -> str:
    text = one_line(text)
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} … {text[-most // 3 :]}"


def shown(value: object) -> str:
    """A caller's value as an error names it: short, on one line, and of anything but plain values the type alone."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() <= _MOST_BITS else f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return f"{value[:_MOST_SHOWN]!r}{' …' if len(value) > _MOST_SHOWN else ''}"
    return type(value).__name__


def one_line(text: str) -> str:
    """Control characters, of file names and of what strangers say, and bytes that are not UTF-8, written as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)

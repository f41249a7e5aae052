"""Running a chat template: source and values in, text out. The one place where such programs run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError

from inference_pio.errors import ChatTemplateError, UsageError
from inference_pio.text.protect import unprotect
from inference_pio.text.sandbox import (
    MAX_OUTPUT,
    TemplateLimit,
    TemplateRaised,
    compile_template,
    limited,
    variables_of,
)

_MAX_SOURCE = 1 << 20
_COMPILED = 8  # templates that are kept


def render(source: str, values: Mapping[str, Any], path: str | Path) -> str:
    """
    Args:
        path: of the model, named in errors.

    Raises:
        UsageError: the template refuses the conversation, in its own words.
        ChatTemplateError: it cannot be compiled, fails, or uses more loop rounds, time or text than it may.
    """
    template = _compiled(source, str(path))
    try:
        with limited():
            return _collect(template, values)
    except TemplateRaised as error:
        raise UsageError(f"the model's chat template refuses the messages: {_line(error)}") from error
    except TemplateLimit as error:
        raise failure(path, f"the template {_line(error)}") from error
    except SecurityError as error:
        raise failure(path, f"the template does what its sandbox forbids: {_line(error)}") from error
    except (
        jinja2.TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise failure(path, f"the template fails on these messages: {_line(error)}") from error
    except (RecursionError, MemoryError) as error:
        raise failure(path, f"the template needs too much: {type(error).__name__}") from error


def failure(path: str | Path, what: str) -> ChatTemplateError:
    return ChatTemplateError(
        path, what, where="chat template", hint="give the prompt as plain text to do without it"
    )


def values_read(source: str, path: str | Path) -> frozenset[str]:
    """Names of the values that a template looks at; it is parsed, and not run.

    Raises:
        ChatTemplateError: it cannot be parsed.
    """
    with _understood(path):
        return variables_of(source)


@lru_cache(_COMPILED)
def _compiled(source: str, path: str) -> jinja2.Template:
    if len(source) > _MAX_SOURCE:
        raise failure(path, f"has {len(source)} characters, more than {_MAX_SOURCE}")
    with _understood(path):
        return compile_template(source)


@contextmanager
def _understood(path: str | Path) -> Iterator[None]:
    try:
        yield
    except jinja2.TemplateSyntaxError as error:
        raise failure(path, f"line {error.lineno}: {_line(error)}") from error
    except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError) as error:
        raise failure(path, _line(error)) from error


def _collect(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    parts: list[str] = []
    size = 0
    for part in template.generate(values):
        size += len(part)
        if size > MAX_OUTPUT:
            raise TemplateLimit(f"writes more than {MAX_OUTPUT} characters")
        parts.append(part)
    return "".join(parts)


def _line(error: BaseException) -> str:
    return unprotect(" ".join(str(error).split()))[:300] or type(error).__name__

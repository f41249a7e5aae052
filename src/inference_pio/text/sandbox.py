"""The jinja2 environment in which chat templates run.

Templates come with a model, so they are programs somebody else wrote. They run in jinja2's immutable
sandbox, with the settings, globals and filters that Transformers gives them (the reference that model
authors test with), and under limits: loop rounds, time, sizes of text. A single operation cannot be
interrupted from inside the process; the limits catch everything that takes many.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from inference_pio.text.protect import MARK

MAX_OUTPUT = 8_000_000
MAX_ROUNDS = 1_000_000
MAX_SECONDS = 10.0

_WIDE_FORMAT = re.compile(r"%[^%a-zA-Z]*(\d{5,}|\*)")
_TICK, _JOIN = "__round", "__join"


class TemplateLimit(jinja2.TemplateRuntimeError):
    """A template used more loop rounds, time or text than it may."""


class TemplateRaised(jinja2.TemplateRuntimeError):
    """A template refused the conversation (`raise_exception`)."""


class _Budget:
    def __init__(self) -> None:
        self.rounds = 0
        self.deadline = time.monotonic() + MAX_SECONDS

    def spend(self) -> None:
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise TemplateLimit(f"goes through more than {MAX_ROUNDS} loop rounds")
        if self.rounds % 256 == 0 and time.monotonic() > self.deadline:
            raise TemplateLimit(f"takes more than {MAX_SECONDS:g} s")


_budget: ContextVar[_Budget | None] = ContextVar("template_budget", default=None)


@contextmanager
def limited() -> Iterator[None]:
    """One rendering: what runs inside shares one budget."""
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def compile_template(source: str) -> jinja2.Template:
    """Raises jinja2's `TemplateError`, or `RecursionError` for one that is nested too deeply."""
    tree = _Guard().visit(_environment.parse(source))
    code = _environment.compile(tree)
    return jinja2.Template.from_code(_environment, code, _environment.make_globals(None))


def variables_of(source: str) -> frozenset[str]:
    """Names that a template reads without setting them itself."""
    return frozenset(jinja2.meta.find_undeclared_variables(_environment.parse(source)))


class _Guard(NodeTransformer):
    """Adds a round to every loop and macro, and a length check to every joining of strings."""

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, _call_round(node.lineno))
        return node

    def visit_Macro(self, node: jinja2.nodes.Macro) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, _call_round(node.lineno))
        return node

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node)
        joined = jinja2.nodes.Call(
            jinja2.nodes.Name(_JOIN, "load"), list(node.nodes), [], None, None, lineno=node.lineno
        )
        return joined.set_environment(_environment)


def _call_round(lineno: int) -> jinja2.nodes.Node:
    call = jinja2.nodes.Call(jinja2.nodes.Name(_TICK, "load"), [], [], None, None, lineno=lineno)
    return jinja2.nodes.ExprStmt(call, lineno=lineno).set_environment(_environment)


def _round() -> None:
    budget = _budget.get()
    if budget is not None:
        budget.spend()


def _join(*values: Any) -> str:
    parts = [str(value) for value in values]
    _check_size(sum(map(len, parts)))
    return "".join(parts)


def _check_size(size: float) -> None:
    if size > MAX_OUTPUT:
        raise TemplateLimit(f"makes a text or list of more than {MAX_OUTPUT} elements")


class _IgnoreGeneration(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training masks; rendering goes through it."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it as an instance attribute

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return [jinja2.nodes.Scope(body, lineno=line)]


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _round()
        if operator == "**" and _large_power(left, right):
            raise TemplateLimit("raises a number to too high a power")
        if operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise TemplateLimit("formats to too great a width")
        if operator == "*":
            _check_size(_product_size(left, right))
        if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _check_size(len(left) + len(right))
        return super().call_binop(context, operator, left, right)


def _large_power(left: Any, right: Any) -> bool:
    return isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 0) > 4096


def _product_size(left: Any, right: Any) -> int:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
            return len(sequence) * max(times, 0)
    if isinstance(left, int) and isinstance(right, int):
        return left.bit_length() + right.bit_length()
    return 0


class _Namespace(Namespace):
    """jinja2's `namespace()`, without names that Python gives a meaning to."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` may be one of the names
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


class _DictMaker:
    """`dict(...)` and `dict.fromkeys(...)` without the class itself, whose attributes lead out of the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _raise_exception(message: Any) -> None:
    raise TemplateRaised(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    # Protection must survive the escaping of everything that is not ASCII.
    return text.replace(f"\\u{ord(MARK):04x}", MARK)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)  # the local day is what templates mean


def _make_environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_IgnoreGeneration, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        {
            "raise_exception": _raise_exception,
            "strftime_now": _now,
            "dict": _DictMaker(),
            "namespace": _Namespace,
            _TICK: _round,
            _JOIN: _join,
        }
    )
    return environment


_environment = _make_environment()

"""C1, C2, C3: what a plugin says of itself, and how it reads what checkpoints say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from inference_pio.conformance.case import Raw, sections
from inference_pio.conformance.subject import Subject
from inference_pio.errors import InferencePIOError, ModelFileError
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import claims_checkpoint, default_registry

MANIFEST_SECONDS = 0.05
_ATTEMPTS = 5
_UNKNOWN = "a_key_that_no_model_has"
_IMPORT = """
import sys, time
start = time.process_time()  # of this process alone, whatever else the machine does
from {module} import {name}
seconds = time.process_time() - start
print(seconds, "torch" in sys.modules)
"""


def check_manifest_is_light(subject: Subject) -> None:
    """The manifest imports without torch in under 50 ms (the best of a few fresh processes)."""
    module = subject.manifest.plugin.partition(":")[0].rpartition(".")[0]
    program = _IMPORT.format(module=module, name="MANIFEST")
    best = float("inf")
    for _ in range(_ATTEMPTS):
        printed = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
        assert printed[1] == "False", f"importing {module}:MANIFEST imports torch"
        best = min(best, float(printed[0]))
        if best < MANIFEST_SECONDS:
            return
    raise AssertionError(f"importing {module}:MANIFEST takes {best:.3f} s, at most {MANIFEST_SECONDS} s")


def check_own_claims(subject: Subject) -> None:
    """The plugin, and nobody else, claims every model of its own case: the tiny ones and the real checkpoints."""
    registered = default_registry().all()
    raws = {**subject.case.tiny, **{name: facts.raw for name, facts in subject.case.checkpoints.items()}}
    for name, raw in raws.items():
        claiming = [found.manifest.name for found in registered if claims_checkpoint(found.manifest, raw)]
        assert claiming == [subject.manifest.name], f"{name}: claimed by {', '.join(claiming) or 'nobody'}"


def check_claims(subject: Subject) -> None:
    """Of the collected configurations the plugin claims exactly those it says, and nobody else claims these."""
    registered = default_registry().all()
    for name, raw in subject.collected.items():
        claiming = [found.manifest.name for found in registered if claims_checkpoint(found.manifest, raw)]
        mine, stated = subject.manifest.name in claiming, name in subject.case.claims
        assert mine == stated, f"{name}: claimed by {claiming or 'nobody'}, the case says {stated}"
        assert not mine or len(claiming) == 1, f"{name}: claimed by {', '.join(claiming)}"
    missing = subject.case.claims - set(subject.collected)
    assert not missing, f"the case claims configurations that are not collected: {', '.join(sorted(missing))}"


def check_every_key_counts(subject: Subject) -> None:
    """A key with another value changes the configuration or is refused, unless it is listed as ignored."""
    plugin = subject.plugin()
    for name, raw in _configurations(subject):
        stated = asdict(plugin.read_config(raw, name))
        for section, keys in sections(raw).items():
            for key in sorted({f"{section}{key}" for key in keys} - subject.case.ignored):
                another = _another(keys[key.removeprefix(section)])
                assert _matters(plugin, _changed(raw, key, another), stated), f"{name}: nothing reads {key!r}"


def check_unknown_is_refused(subject: Subject) -> None:
    """An unknown key is refused by name, in the file and in each object of it that is a configuration, and beside the
    rotary settings; so is an unknown rope_type.
    """
    plugin = subject.plugin()
    for name, raw in _configurations(subject):
        for section in sections(raw):
            _refused(plugin, _changed(raw, f"{section}{_UNKNOWN}", 1), _UNKNOWN, name)
        for key in subject.case.rope_keys:
            section, _, last = key.rpartition(".")
            if isinstance(rope := (raw.get(section) or {} if section else raw).get(last), Mapping):
                _refused(plugin, _changed(raw, key, {**rope, _UNKNOWN: 1}), _UNKNOWN, name)
                unheard = {**rope, "rope_type": "unheard_of"}
                _refused(plugin, _changed(raw, key, unheard), "unheard_of", name)


def _configurations(subject: Subject) -> Iterator[tuple[str, Raw]]:
    yield from subject.case.tiny.items()
    mine = sorted(subject.case.claims & set(subject.collected))
    yield from ((name, subject.collected[name]) for name in mine)
    yield from (
        (name, facts.raw) for name, facts in subject.case.checkpoints.items() if facts.format == "safetensors"
    )


def _matters(plugin: ModelPlugin, changed: Raw, stated: Mapping[str, Any]) -> bool:
    try:
        return asdict(plugin.read_config(changed, "config.json")) != stated
    except InferencePIOError:
        return True


def _changed(raw: Raw, key: str, value: Any) -> Raw:
    """config.json with another value under "key" or "section.key"."""
    section, _, last = key.rpartition(".")
    return {**raw, section: {**raw[section], last: value}} if section else {**raw, last: value}


def _another(value: Any) -> Any:
    """A value of the same kind, so that not the type check alone is what notices."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value * 2 + 2
    return 7 if value is None else "another"


def _refused(plugin: ModelPlugin, raw: Raw, word: str, name: str) -> None:
    try:
        plugin.read_config(raw, name)
    except ModelFileError as error:
        refusal = str(error)
    else:
        raise AssertionError(f"{name}: {word!r} is accepted in silence")
    assert word in refusal, f"{name}: the refusal does not name {word!r}: {refusal}"

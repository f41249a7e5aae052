"""Which techniques are at work for one model, and why the others are not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from inference_pio.config import BaseModelConfig
from inference_pio.errors import ConfigError, UsageError
from inference_pio.optimizations.combinations import Tested, tested
from inference_pio.optimizations.quality import Grants, no_receipt
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.optimizations.technique import (
    Situation,
    Standing,
    Technique,
    active,
    dormant,
    not_applicable,
)
from inference_pio.plugin.facts import TechniqueFact
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import serving_of


class CannotAct(ConfigError):
    """A caller asks for what cannot act: `name` is the technique's, `status` how it stands."""

    def __init__(self, asked: str, technique: Technique, standing: Standing) -> None:
        super().__init__(f"{asked}: {technique.title} cannot be used here: {standing.reason}")
        self.name, self.status = technique.name, standing.status


@dataclass(frozen=True)
class Chosen:
    """One technique and how it stands; `asked` is the word by which the caller asked for it, empty where nobody did."""

    technique: Technique
    standing: Standing
    exempt: tuple[int, ...] = ()
    asked: str = ""

    @property
    def active(self) -> bool:
        return self.standing.status == "active"

    def facts(self) -> dict[str, Any]:
        """As data, before anything is said of what it did."""
        return {
            **self.technique.facts(),
            "status": self.standing.status,
            "reason": self.standing.reason,
            "exempt_layers": list(self.exempt),
        }


def check_names(options: RuntimeOptions, techniques: Mapping[str, Technique] = TECHNIQUES) -> None:
    """Raises `UsageError` where `enable` and `disable` name what is no technique, or the same one."""
    for name in (*options.enable, *options.disable):
        if name not in techniques:
            near = difflib.get_close_matches(name, techniques, 1)
            hint = f"did you mean {near[0]}" if near else f"techniques: {', '.join(techniques)}"
            raise UsageError(f"there is no technique {name!r}; {hint}")
    both = sorted(set(options.enable) & set(options.disable))
    if both:
        raise UsageError(f"{', '.join(both)} cannot be enabled and disabled at once")


def without_disabled(
    config: BaseModelConfig, options: RuntimeOptions, techniques: Mapping[str, Technique] = TECHNIQUES
) -> BaseModelConfig:
    """The configuration with the flags off of techniques that a model is built with and the caller does not want."""
    off = [techniques[name] for name in options.disable]
    fields: dict[str, Any] = {
        flag: False for technique in off if technique.by_flag for flag in technique.flags
    }
    return replace(config, **fields)


def choose(
    at: Situation,
    facts: Iterable[TechniqueFact],
    grants: Grants = no_receipt,
    techniques: Mapping[str, Technique] = TECHNIQUES,
    tested: Tested = tested,
) -> tuple[Chosen, ...]:
    """How every technique stands, in the order in which the active ones are to be applied.

    Args:
        facts: what the plugin says of the standard's families.
        grants: what the checkpoint's receipt allows of approximate techniques.
        tested: which two have been tested together; the others are not at work together unless the caller allows it.

    Raises:
        ConfigError: the caller asks for what cannot be had here, for two that exclude each other, or for two that
            nobody has tested together.
    """
    excluded = {fact.name: fact.reason for fact in facts if fact.status == "not applicable"}
    standings = [_of(technique, at, excluded, grants) for technique in techniques.values()]
    return tuple(_settle(standings, (lambda *_: True) if at.options.allow_untested else tested))


def apply_all(chosen: Sequence[Chosen], model: nn.Module, config: BaseModelConfig, stage: str) -> nn.Module:
    """Bring the active ones of a stage to a model, in order."""
    for one in chosen:
        if one.active and one.technique.stage in (stage, "both"):
            serving_of(model).exempt[one.technique.name] = frozenset(one.exempt)
            model = one.technique.apply(model, config)
    return model


def _of(technique: Technique, at: Situation, excluded: Mapping[str, str], grants: Grants) -> Chosen:
    name = technique.name
    asked = technique.asked_by(at.options) or ("enable " + name if name in at.options.enable else "")
    if technique.family in excluded:
        standing = not_applicable(excluded[technique.family])
    elif name in at.options.disable:
        standing = dormant("switched off by name")
    elif off := [flag for flag in technique.flags if not getattr(at.config, flag)]:
        standing = dormant(f"{off[0]} is off")
        if asked:
            raise ConfigError(
                f"{asked}: {technique.title} cannot be used here: {off[0]} is off; set it in the model's "
                f"configuration, or leave out what switches it off"
            )
    else:
        standing = technique.standing(at)
    if asked and standing.status != "active":
        raise CannotAct(asked, technique, standing)
    if standing.status != "active" or technique.exact or (asked and not technique.needs_receipt):
        return Chosen(technique, standing, asked=asked)
    if not asked and at.options.quality == "exact":
        return Chosen(technique, dormant("approximate, and the level is exact"))
    grant = grants(name)
    if asked and not grant.allowed:
        raise ConfigError(f"{asked}: {technique.title} needs a receipt: {grant.reason}")
    if not grant.allowed:
        return Chosen(technique, dormant(grant.reason))
    return Chosen(technique, active(f"{standing.reason}; {grant.reason}"), grant.exempt)


def _without(one: Chosen, rivals: Sequence[str], strange: Sequence[str]) -> Chosen:
    """Not at work beside those that exclude it, or with which it was not tested; refused where it was asked for."""
    name = one.technique.name
    if rivals and one.asked:
        raise ConfigError(f"{one.asked}: {name} and {rivals[0]} exclude each other; ask for one of them")
    if rivals:
        return replace(one, standing=dormant(f"{rivals[0]} is at work, and they exclude each other"))
    if one.asked:
        raise ConfigError(
            f"{one.asked}: {name} and {strange[0]} have not been tested together; ask for one of them, or for "
            f"both with allow_untested (--allow-untested)"
        )
    return replace(
        one,
        standing=dormant(f"{strange[0]} is at work, and they have not been tested together (allow_untested)"),
    )


def _settle(standings: Sequence[Chosen], tested: Tested) -> list[Chosen]:
    """Needs, conflicts and untested pairs among the active ones: what was asked for stays, then what comes first."""
    settled: dict[str, Chosen] = {}
    for one in sorted(standings, key=lambda each: not each.asked):
        name, technique = one.technique.name, one.technique
        rivals = [
            other.technique.name
            for other in settled.values()
            if other.active
            and (other.technique.name in technique.conflicts or name in other.technique.conflicts)
        ]
        strange = [other for other, each in settled.items() if each.active and not tested(name, other)]
        if one.active and (rivals or strange):
            one = _without(one, rivals, strange)
        settled[name] = one
    missing = {
        name: [need for need in one.technique.needs if not settled[need].active]
        for name, one in settled.items()
        if one.active
    }
    for name, needs in missing.items():
        if needs:
            if settled[name].asked:
                raise ConfigError(f"{settled[name].asked}: {name} needs {needs[0]}, which is not at work")
            settled[name] = replace(settled[name], standing=dormant(f"it needs {needs[0]}"))
    return [settled[one.technique.name] for one in standings]

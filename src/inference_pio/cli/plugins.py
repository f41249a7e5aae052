"""`inference-pio plugins`: which architectures can run, and what each does with the standard's techniques."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import typer

from inference_pio.bridge import MANIFEST as BRIDGE
from inference_pio.bridge.offer import INSTALL, installed
from inference_pio.cli.options import AsJson
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_facts, print_json, print_table
from inference_pio.errors import PluginError, UsageError
from inference_pio.plugin.facts import ChatFormat
from inference_pio.plugin.registry import Registered, default_registry


def plugins(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One plugin, with its techniques.")
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Which techniques have been tested together.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the plugins, or show one with its techniques."""
    if matrix:
        _matrix(name, as_json)
        return
    if name is not None:
        _one(name, as_json)
        return
    found, broken = registered_plugins()
    if as_json:
        print_json({"plugins": [_facts(plugin) for plugin in found], "broken": broken})
        return
    print_table(
        ["name", "origin", "API", "reads", "architectures", "GGUF", "capabilities"],
        [
            (
                plugin.manifest.name,
                plugin.origin,
                str(plugin.manifest.api_version),
                ", ".join(plugin.manifest.modalities),
                ", ".join(plugin.manifest.architectures),
                ", ".join(plugin.manifest.gguf_architectures),
                ", ".join(_capabilities(plugin)) or "–",
            )
            for plugin in found
        ],
    )
    for plugin_name, reason in broken.items():
        print(f"{plugin_name} does not load: {reason}")
    print(f"\nother architectures: {bridge_line()}")


def _matrix(name: str | None, as_json: bool) -> None:
    """Every pair of techniques, whatever the plugin."""
    if name is not None:
        raise UsageError(f"--matrix is of all plugins: leave {name} out")
    with importing():
        from inference_pio.benchmarks.technique_page import MEANINGS, sign
        from inference_pio.optimizations.combinations import known
    found = known()
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    numbers = [str(number) for number in range(1, len(found.techniques) + 1)]
    rows = [
        (f"{number} {one}", *(sign(found, one, other) for other in found.techniques))
        for number, one in zip(numbers, found.techniques, strict=True)
    ]
    print_table(["", *numbers], rows)
    print(f"\ntested on {found.date}, release {found.release}")
    for mark, meaning in MEANINGS.items():
        print(f"{mark} {meaning}")


def registered_plugins() -> tuple[list[Registered], dict[str, str]]:
    """The plugins whose manifest loads, and name to reason of those whose does not."""
    registry = default_registry()
    found, broken = [], {}
    for name in registry.names():
        try:
            found.append(registry.get(name))
        except PluginError as error:
            broken[name] = str(error)
    return found, broken


def bridge_line() -> str:
    """What becomes of architectures without a plugin, in one line."""
    found = installed()
    if found is None:
        return f"not run; {INSTALL} lets Transformers' own modules run many of them"
    return f"{BRIDGE.name}, release {found} of {BRIDGE.fallback}"


def _one(name: str, as_json: bool) -> None:
    plugin = default_registry().get(name)
    if default_registry().is_elsewhere(name):
        _one_elsewhere(plugin, as_json)
        return
    with importing():
        from inference_pio.optimizations.registry import families

        model, ways = default_registry().create(name), families()
    techniques, chat = model.techniques(model.config), _chat(model.chat_format(model.config))
    if as_json:
        stated = [{**asdict(fact), "names": ways.pop(fact.name, [])} for fact in techniques]
        print_json({**_facts(plugin), "chat": chat, "techniques": stated, "of_every_plugin": ways})
        return
    print_facts([*_stated(plugin), ("default model", str(model.config.model_path) or "–"), ("chat", chat)])
    print()
    print_table(
        ["technique", "kind", "status", "results", "why"],
        [
            (fact.name, fact.category, fact.status, "exact" if fact.exact else "approximate", fact.reason)
            for fact in techniques
        ],
    )
    print()
    print_table(
        ["what the engine does of it", "by name"], [(one, ", ".join(names)) for one, names in ways.items()]
    )
    print("\nwhich are at work for a checkpoint on this machine: inference-pio plan MODEL")


def _one_elsewhere(plugin: Registered, as_json: bool) -> None:
    """What its manifest says: the rest of a plugin of others is imported in its worker only."""
    if as_json:
        print_json({**_facts(plugin), "runs": "in a worker"})
        return
    print_facts(
        [*_stated(plugin), ("runs", "in a worker, at low_trust unless --security-level says otherwise")]
    )


def _stated(plugin: Registered) -> list[tuple[str, str]]:
    manifest = plugin.manifest
    return [
        (manifest.name, manifest.description),
        ("origin", f"{plugin.origin}, contract version {manifest.api_version}"),
        ("architectures", ", ".join(manifest.architectures) or "those without a plugin"),
        ("GGUF", ", ".join(manifest.gguf_architectures) or "–"),
        ("reads", ", ".join(manifest.modalities)),
        *([("costs", manifest.fallback)] if manifest.fallback else []),
        ("capabilities", ", ".join(_capabilities(plugin)) or "–"),
    ]


def _chat(stated: ChatFormat) -> str:
    """What a chat format says, in words."""
    marks = stated.reasoning
    parts = [f"calls as {' or '.join(stated.tool_calls)}" if stated.tool_calls else "no tool calls"]
    if marks is not None:
        kept = " and ".join(f"{name}={value}" for name, value in marks.kept_with.items())
        history = "left out of later turns" if marks.dropped else "kept in later turns"
        parts.append(f"thoughts in {marks.start}…{marks.end}, {history}{f' unless {kept}' if kept else ''}")
    if stated.template_options:
        named = sorted(f"{name} ({kind.__name__})" for name, kind in stated.template_options.items())
        parts.append(f"options {', '.join(named)}")
    if not stated.system_role:
        parts.append("a system message stands in the user's turn")
    return "; ".join(parts)


def _capabilities(plugin: Registered) -> list[str]:
    return [name.replace("_", " ") for name, has in asdict(plugin.manifest.capabilities).items() if has]


def _facts(plugin: Registered) -> dict[str, Any]:
    return {**asdict(plugin.manifest), "origin": plugin.origin}

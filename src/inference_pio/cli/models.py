"""`inference-pio models`: what can be had by name, what is on this machine, get it and remove it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from inference_pio.cli.options import AcceptLicence, AsJson, Quiet
from inference_pio.cli.progress import download_bars
from inference_pio.cli.tables import print_facts, print_json, print_table
from inference_pio.cli.text import number, size
from inference_pio.errors import ModelNotFound
from inference_pio.loader import catalogue
from inference_pio.loader.catalogue import Entry
from inference_pio.loader.resolve import resolve
from inference_pio.loader.store import ModelStore, Receipt
from inference_pio.plugin.registry import default_registry

app = typer.Typer(help="List, get and remove models.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `models list` shows.")]


@app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Show the models known by name, and what is on this machine."""
    store = ModelStore()
    installed = {receipt.name: receipt for receipt in store.installed()}
    known = [_facts(entry, installed.get(entry.name), store) for entry in catalogue.entries()]
    names = {fact["name"] for fact in known}
    others = [_unlisted(receipt) for name, receipt in installed.items() if name not in names]
    if as_json:
        print_json([*known, *others])
        return
    print_table(
        ["name", "here", "size", "context", "licence", "plugin"],
        [_row(fact) for fact in [*known, *others]],
        right=["size", "context"],
        whole=["name"],
    )


@app.command("info")
def info(name: Name, as_json: AsJson = False) -> None:
    """Show one model: size, licence, sources, where it is."""
    store = ModelStore()
    entry = _entry(name)
    receipt = next((found for found in store.installed() if found.name == entry.name), None)
    facts = _facts(entry, receipt, store)
    if as_json:
        print_json(facts)
        return
    print_facts(
        [
            (entry.name, entry.description),
            ("also called", ", ".join(entry.aliases) or "–"),
            (
                "architecture",
                f"{entry.architecture}{'' if facts['plugin_available'] else ', for which there is no plugin'}",
            ),
            ("parameters", number(entry.parameters)),
            ("context", f"{entry.context_length:,} tokens"),
            ("licence", entry.licence),
            *([("terms", entry.licence_terms)] if entry.licence_terms else []),
            ("size", size(entry.size_bytes)),
            ("on this machine", facts["path"] or f"no; `inference-pio models pull {entry.name}` gets it"),
        ]
    )
    for file in entry.files:
        print()
        sources = [("source", str(source)) for source in file.sources]
        print_facts([("file", f"{file.name}, {size(file.size)}"), ("sha256", file.sha256), *sources])


@app.command("pull")
def pull(name: Name, accept_licence: AcceptLicence = False, quiet: Quiet = False) -> None:
    """Download a model; an interrupted download goes on where it was."""
    with download_bars(quiet) as progress:
        source = resolve(name, progress=progress, accept_licence=accept_licence)
    if not quiet:
        print(f"{source.name} is here: {source.path}", file=sys.stderr)


@app.command("rm")
def remove(name: Name, quiet: Quiet = False) -> None:
    """Remove a downloaded model from this machine."""
    entry = catalogue.find(name)
    freed = ModelStore().remove(entry.name if entry is not None else name)
    if not quiet:
        print(f"removed {entry.name if entry is not None else name}: {size(freed)} freed", file=sys.stderr)


def _entry(name: str) -> Entry:
    entry = catalogue.find(name)
    if entry is None:
        close = catalogue.suggest(name)
        hint = f"did you mean {' or '.join(close)}?" if close else "`inference-pio models list` shows all"
        raise ModelNotFound(f"the catalogue has no model {name[:80]!r}; {hint}")
    return entry


def _facts(entry: Entry, receipt: Receipt | None, store: ModelStore) -> dict[str, Any]:
    path = store.path_of(entry) if receipt is not None else None
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "description": entry.description,
        "architecture": entry.architecture,
        "plugin_available": entry.architecture in default_registry().names(),
        "parameters": entry.parameters,
        "context_length": entry.context_length,
        "licence": entry.licence,
        "licence_terms": entry.licence_terms,
        "size_bytes": entry.size_bytes,
        "installed": path is not None,
        "path": str(path) if path is not None else None,
        "files": [
            {
                "name": file.name,
                "size_bytes": file.size,
                "sha256": file.sha256,
                "sources": [str(source) for source in file.sources],
            }
            for file in entry.files
        ],
    }


def _unlisted(receipt: Receipt) -> dict[str, Any]:
    """A model in the store that an older catalogue named."""
    return {
        "name": receipt.name,
        "licence": receipt.licence,
        "size_bytes": receipt.size_bytes,
        "installed": True,
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    return (
        facts["name"],
        "yes" if facts["installed"] else "–",
        size(facts["size_bytes"]),
        f"{facts['context_length']:,}" if "context_length" in facts else "–",
        facts["licence"],
        _plugin_text(facts) if "architecture" in facts else "unknown",
    )


def _plugin_text(facts: dict[str, Any]) -> str:
    architecture: str = facts["architecture"]
    return architecture if facts["plugin_available"] else f"no {architecture}"

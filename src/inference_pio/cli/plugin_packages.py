"""`inference-pio plugin`: packages of others that bring plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from inference_pio.cli.options import AsJson
from inference_pio.cli.tables import print_json, print_table
from inference_pio.errors import PluginError, UsageError
from inference_pio.loader.store import ModelStore
from inference_pio.packages.fetch import fetched
from inference_pio.packages.store import Package, PackageStore

app = typer.Typer(help="Install, list and remove plugin packages; nothing of one runs outside of a sandbox.")


@app.callback(invoke_without_command=True)
def _plugin(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("install")
def install(
    package: Annotated[str, typer.Argument(metavar="NAME==VERSION", help="Or a .whl file.")],
    sha256: Annotated[
        str, typer.Option("--sha256", metavar="HEX", help="What the wheel has to have.", show_default=False)
    ],
) -> None:
    """Install a wheel without building or running anything of it."""
    digest = sha256.removeprefix("sha256:").lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise UsageError("--sha256 takes 64 hexadecimal digits")
    with fetched(package, digest) as wheel:
        installed = _store().install(wheel, digest)
    receipt = installed.receipt
    print(f"{receipt.name} {receipt.version} brings {', '.join(receipt.plugins)}, at level low_trust")


@app.command("list")
def list_packages(as_json: AsJson = False) -> None:
    """Show what is installed, and whether it is still what was installed."""
    rows = [_row(folder) for folder in _store().folders()]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["name", "version", "plugins", "state"],
        [
            (row["name"], row["version"], ", ".join(row["plugins"]), row["problem"] or "unchanged")
            for row in rows
        ],
    )


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="As `plugin list` shows it.")]) -> None:
    """Remove a package and its files."""
    print(f"{_store().remove(name)} is removed")


def _row(folder: Path) -> dict[str, Any]:
    """What is known of one, and what is wrong with it; with a receipt that cannot be read that is little."""
    name, _, version = folder.name.rpartition("-")
    row = {
        "name": name,
        "version": version,
        "sha256": "",
        "plugins": [],
        "folder": str(folder),
        "problem": "",
    }
    try:
        package = Package.at(folder)
        row |= {"sha256": package.receipt.sha256, "plugins": sorted(package.receipt.plugins)}
        package.check()
    except PluginError as error:
        row["problem"] = str(error)
    return row


def _store() -> PackageStore:
    return PackageStore(ModelStore().home)

"""`inference-pio plugin`: packages of others that bring plugins."""

from __future__ import annotations

from typing import Annotated

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
    rows = [(package, _state(package)) for package in _store().installed()]
    if as_json:
        print_json(
            [
                {
                    "name": package.receipt.name,
                    "version": package.receipt.version,
                    "sha256": package.receipt.sha256,
                    "plugins": sorted(package.receipt.plugins),
                    "folder": str(package.folder),
                    "problem": problem,
                }
                for package, problem in rows
            ]
        )
        return
    print_table(
        ["name", "version", "plugins", "state"],
        [
            (
                package.receipt.name,
                package.receipt.version,
                ", ".join(package.receipt.plugins),
                problem or "unchanged",
            )
            for package, problem in rows
        ],
    )


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="As `plugin list` shows it.")]) -> None:
    """Remove a package and its files."""
    removed = _store().remove(name).receipt
    print(f"{removed.name} {removed.version} is removed")


def _state(package: Package) -> str:
    try:
        package.check()
    except PluginError as error:
        return str(error)
    return ""


def _store() -> PackageStore:
    return PackageStore(ModelStore().home)

"""`inference-pio new-model`: a plugin in a package of its own, begun as a copy of one that is there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from inference_pio.plugin.registry import default_registry
from inference_pio.scaffold.package import new_package


def new_model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The new plugin: a-z, 0-9 and _; `model_type` of its config.json."
        ),
    ],
    source: Annotated[
        str, typer.Option("--from", metavar="PLUGIN", help="The plugin nearest to it: its code is copied.")
    ],
    into: Annotated[
        Path,
        typer.Option("--into", metavar="FOLDER", help="Where the folder NAME is made.", show_default=False),
    ] = Path(),
) -> None:
    """Write a package for a new architecture, copied from a plugin under new names."""
    folder = new_package(name, source, into, default_registry())
    where = shlex.quote(str(folder))
    print(
        f"{folder} is a copy of {source} under new names. Next:\n"
        f"  pip install --no-build-isolation -e {where}\n"
        f"  inference-pio verify {name}\n"
        f"{folder / 'README.md'} lists what is left to do."
    )

"""`inference-pio doctor`: what this machine offers, what was found and what is missing."""

from __future__ import annotations

from typing import Any

import typer

from inference_pio.cli.options import AsJson
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_facts, print_json, print_table
from inference_pio.cli.text import size
from inference_pio.errors import ResourceError


def doctor(as_json: AsJson = False) -> None:
    """Check this machine and installation. Exit code 5 where nothing could run."""
    with importing():
        from inference_pio.cli import checkup
    report = checkup.report()
    if as_json:
        print_json(report)
    else:
        _show(report)
    if report["problems"]:
        raise typer.Exit(ResourceError.exit_code)


def _show(report: dict[str, Any]) -> None:
    for title, facts in report.items():
        if title in ("problems", "operations", "plugins", "isolation"):
            continue
        print_facts([_line(name, value) for name, value in facts.items()], title)
        print()
    print_facts(report["plugins"].items(), "plugins")
    print()
    _show_isolation(report["isolation"])
    print()
    print_table(
        ["operation", "device", "runs", "why"],
        [(row["name"], row["device"], row["implementation"], row["reason"]) for row in report["operations"]],
    )
    print()
    for problem in report["problems"]:
        print(f"problem: {problem}")
    if not report["problems"]:
        print("Ready to run models.")


def _show_isolation(levels: dict[str, Any]) -> None:
    """What holds for a plugin in a worker, by its level; the words are those of the tightest."""
    tightest = next(iter(levels.values()))
    print_table(
        ["limits of a worker", *levels, "how"],
        [
            (
                name if entry["value"] is None else f"{name} {entry['value']:g}",
                *(level[name]["state"] for level in levels.values()),
                "; ".join(filter(None, (entry["how"], *entry["gaps"], entry["remedy"]))),
            )
            for name, entry in tightest.items()
        ],
    )


def _line(name: str, value: Any) -> tuple[str, str]:
    """A fact as it is shown: "used_bytes": 98362432 as "used", "98.4 MB"."""
    if name.endswith("_bytes"):
        return name.removesuffix("_bytes").replace("_", " "), size(value)
    shown = name.replace("_", " ")
    if isinstance(value, bool):
        return shown, "yes" if value else "no"
    if isinstance(value, list):
        return shown, ", ".join(map(str, value)) or "none"
    return shown, str(value)

"""Tools for conversations in tests; descriptions hold what templates must not escape."""

from __future__ import annotations

from typing import Any

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The "weather" <b>of</b> a city & more',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "é"},
                    "days": {"type": "integer", "minimum": 1},
                    "units": {"type": "string", "enum": ["C", "F"]},
                    "hours": {"type": "array", "items": {"type": "integer"}},
                    "extra": {"type": "object"},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "The time", "parameters": {"type": "object"}},
    },
]

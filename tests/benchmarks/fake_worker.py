"""A worker that computes nothing: `fake_worker.py LOG SECONDS [HOW] SETTINGS` says that every request took SECONDS.

HOW  dies      ends with an error at its third request
     garbage   says something that is no JSON at its third request
     short     gives a token too few
     untimed   does not say when the first token came
     mute      never says anything
"""

from __future__ import annotations

import json
import sys
import time

log, seconds, *how, settings = sys.argv[1:]
misbehaves = how[0] if how else ""
seen = 0


def say(message: object) -> None:
    print(message if isinstance(message, str) else json.dumps(message), flush=True)


with open(log, "a") as calls:
    print(json.dumps({"loaded": json.loads(settings)}), file=calls, flush=True)
    if misbehaves == "mute":
        time.sleep(60)
    say({"ready": {"version": "1.0", "described": "fake", "vocab_size": 50}})
    for line in sys.stdin:
        request = json.loads(line)
        request["at"] = time.monotonic()
        print(json.dumps(request), file=calls, flush=True)
        seen += 1
        if misbehaves == "dies" and seen == 3:
            raise RuntimeError("no more memory for keys and values")
        if misbehaves == "garbage" and seen == 3:
            say("Segmentation fault, perhaps")
            continue
        length = request["output_len"] - (misbehaves == "short")
        first = None if misbehaves == "untimed" else float(seconds) / 4
        tokens = [[7] * length for _ in request["prompts"]]
        say({"seconds": float(seconds), "first_token_seconds": first, "tokens": tokens})

"""Processes that this one starts and talks to: how they begin, and what a message looks like."""

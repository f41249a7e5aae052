"""Loader, text and engine put together for one plugin: what the contract calls a runtime, in this process."""

"""The plugin contract: interfaces, lifecycle, manifest, registry, and the types a plugin states its facts in."""

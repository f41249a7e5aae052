"""A new plugin as a package of its own, begun as a copy of a plugin that is there."""

"""A plugin in a process of its own. The parent's side imports neither torch nor a plugin."""

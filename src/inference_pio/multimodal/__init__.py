"""How an image that somebody gave becomes pixels, and its place in a prompt."""

"""How near our engine comes to what this machine can do, and how it stands to the last recorded run."""

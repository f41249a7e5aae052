"""The sheet of a model: what each technique does to its speed, memory, energy and answers on this machine."""

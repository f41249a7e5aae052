"""The command line `inference-pio`: one file per verb. Nothing here imports torch before a verb needs a model."""

"""The standard's optimisation techniques: one class each, chosen for a model by its flags, quality and receipts."""

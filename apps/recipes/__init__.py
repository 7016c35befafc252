"""How each model is trained: one file per model, found by its name."""

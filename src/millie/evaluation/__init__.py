"""How well patients that were not trained on are called: cross-validation and its controls."""

"""Export: a model file that computes what was measured, and a card that says what to expect."""

"""Who may have how much."""

"""Who did what: an entry for every call that was to change something."""

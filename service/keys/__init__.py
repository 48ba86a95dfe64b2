"""API keys: made, listed and revoked by the administrator."""

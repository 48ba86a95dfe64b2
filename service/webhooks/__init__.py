"""Webhooks: a job's events, posted to an address of its sender's, signed, in order, until they arrive."""

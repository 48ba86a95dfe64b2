"""Criteria, one per file: how much each output channel of a layer matters."""

"""A finished job as one HTML file that needs nothing else: ``GET /jobs/{id}/report``."""

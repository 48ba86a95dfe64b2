"""Models: trained networks as ``.pt2`` programs."""

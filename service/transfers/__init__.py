"""Large uploads in parts, each of which may break off: ``/uploads``."""

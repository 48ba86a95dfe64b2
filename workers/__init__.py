"""Running one job: its trials under Ray Tune, and the winner's recovery and export. No HTTP and no SQL."""

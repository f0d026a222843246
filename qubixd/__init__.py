"""The daemon every participant runs. trio only."""

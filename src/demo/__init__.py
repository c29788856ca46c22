"""The demo: generated faces, and what the notebook runs on where there are no photos."""

"""What is measured of the project itself: speed, coverage, robustness."""

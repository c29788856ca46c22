"""From a folder of files to usable photos, each with its part in training or a test."""

"""Followers of a run, one file each; ``base`` says what a callback is told."""

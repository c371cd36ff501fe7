"""Segmentation heads, one file each; ``base`` says what a head is."""

"""Backbones, one file per family; ``base`` says what a backbone is."""

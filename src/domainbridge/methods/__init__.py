"""What is learned. Read ``self_training.py`` (step 1) and ``distillation.py`` (step 2) first, then ``ddb.py``."""

"""The method restated plainly: float32, full resolution, loops over samples and classes.

Written from the method's description, to compare with; the product never imports it.
"""

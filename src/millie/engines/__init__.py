"""Engines on existing cluster software: the one-method seam of :mod:`millie.engine` elsewhere."""

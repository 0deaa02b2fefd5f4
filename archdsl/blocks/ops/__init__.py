"""Primitive operations, free of torch; their modules are in :mod:`archdsl.blocks.nn`."""

"""Storage: a study's trials on disk or in a database, shared by processes that may die at any moment.

Imports ``space``.
"""

"""Checking: whether terms are right for every combination of choices that can occur.

Arguments fit each other, layers fit their neighbours, and nothing is too large to look at. Imports
``reading`` and what lies below it.
"""

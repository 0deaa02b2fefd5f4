"""The study: what is tried next, what is done with it, who goes on, and what the user sees meanwhile.

Imports ``workers``, ``samplers``, ``statistics`` and what lies below them.
"""

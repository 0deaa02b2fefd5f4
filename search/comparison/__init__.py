"""Samplers side by side: equal budgets, many seeds, and which differences are real."""

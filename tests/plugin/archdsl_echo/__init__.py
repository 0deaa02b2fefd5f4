"""A component for archdsl that lives in a package of its own."""

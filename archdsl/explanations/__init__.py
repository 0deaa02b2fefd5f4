"""What each diagnostic means: one Markdown file an id, read by :mod:`archdsl.catalogue`."""

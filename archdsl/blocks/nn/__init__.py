"""Modules of the operations. This package imports torch; the declarations in ``ops`` do not."""

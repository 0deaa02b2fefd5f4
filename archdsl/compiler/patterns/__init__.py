"""Layer patterns of other tools: read into one sequence of kinds, and written back.

``read`` takes a Megatron string or a model's JSON configuration, ``of_arch`` an architecture; ``arch_text``
gives a file of the language, ``write`` another tool's notation.
"""

from archdsl.compiler.patterns.formats import FORMATS, write
from archdsl.compiler.patterns.kinds import Kind, Sizes, arch_text, of_arch, sizes_of_arch
from archdsl.compiler.patterns.reading import read

__all__ = ["FORMATS", "Kind", "Sizes", "arch_text", "of_arch", "read", "sizes_of_arch", "write"]

"""The language's text side: from text to syntax tree and back."""

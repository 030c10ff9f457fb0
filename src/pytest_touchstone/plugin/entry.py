"""The pytest11 module: hooks that delegate."""

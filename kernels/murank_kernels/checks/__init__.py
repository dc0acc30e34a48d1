"""What callers pass in, checked before any work.

Imports loops.
"""

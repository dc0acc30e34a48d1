"""What comes in from outside: as it may be shown.

Imports nothing of murank.
"""

"""What touches a disk: files that appear whole, and plain ones, read strictly.

Imports checks, machine.
"""

"""Cores and control groups: how much of the machine this process may use.

Imports no room.
"""

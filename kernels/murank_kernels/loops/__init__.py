"""Loops: compiled and kept, shaped for vector instructions, spread over worker threads.

Imports machine.
"""

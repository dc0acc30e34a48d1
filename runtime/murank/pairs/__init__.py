"""Labelled pairs of images: what adaptation learns from and calibration is measured by.

Imports files, datasets.
"""

"""The appliance's service: an engine and a gallery over HTTP, for neighbours on the box.

Imports machine, checks, files, engine, gallery, worker.
"""

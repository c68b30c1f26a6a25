"""Formats of results that were made elsewhere, one a module; `probes.imports` tells them apart. Imports no torch."""

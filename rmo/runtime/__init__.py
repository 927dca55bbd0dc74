"""Hosts, devices, files, faults: what everything runs on."""

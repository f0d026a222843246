"""Tunnels: streams between a caller's programs and the ports, programs and files of its job."""

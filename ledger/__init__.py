"""What a node must not forget: leases, outbox, settings and keys, on its own disk."""

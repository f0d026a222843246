"""What qubix nodes say to each other and what it means: pure, no I/O, no clock."""

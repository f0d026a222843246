"""Money: keys, transactions, the escrow contract's bytes, and the chains it lives on."""

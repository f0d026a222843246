"""Front ends: programs on asyncio that speak to a running daemon over its control socket."""

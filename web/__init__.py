"""The public indexer and the dashboard: asyncio, read-only, without any key. `python -m web --help`."""

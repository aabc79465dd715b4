"""Everything that measures weights."""

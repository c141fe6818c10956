"""The tables: declared, written as files, committed, read."""

"""Zip archives: the directory, and each member's content."""

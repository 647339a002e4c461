"""Folders of pictures, many at a time."""

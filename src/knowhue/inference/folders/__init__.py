"""Folders of images, many at a time."""

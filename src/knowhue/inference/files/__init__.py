"""Picture files in and out, with all that they carry."""

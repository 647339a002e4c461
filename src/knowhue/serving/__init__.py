"""The server: an HTTP API, and a web page that uses it."""

"""The page and the HTTP API: a browser, or a program, is enough."""

"""The doors: command line, and later the page. Only here is anything printed."""

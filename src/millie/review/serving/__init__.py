"""Starting it all: checks before the first request, the web server, and the processes beside it."""

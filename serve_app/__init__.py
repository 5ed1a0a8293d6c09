"""Ray Serve: the graph of deployments, the HTTP API and the web page."""

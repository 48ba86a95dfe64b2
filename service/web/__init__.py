"""The page to watch a search on: HTML from the server, live by server-sent events, plots from the API's own figures."""

"""The service: REST, database, store, dispatcher, command line and Python client."""

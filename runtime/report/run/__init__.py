"""One recorded run as one HTML page that needs nothing beside it: `memrt report RUN`."""

"""Reports as one page that needs nothing beside it: no scripts, fonts or pictures from elsewhere."""

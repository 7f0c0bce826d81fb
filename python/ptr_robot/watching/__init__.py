"""A local page that follows a run while it trains."""

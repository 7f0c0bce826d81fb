"""A policy behind a websocket, in openpi's protocol, and the client side of it."""

"""A WebSocket client on `_net`, over the Sans-I/O core of websockets."""

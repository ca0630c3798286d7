"""A fold is trained and validated: order, beginning, loader, session, epochs; the network improves by corrections."""

"""How a network learns: loss, optimizer, schedule, splits, several processes."""

"""From measurements to plans: fingerprint, planner, topology, costs."""

"""A tiny world in which the methods can be compared in minutes on a CPU."""

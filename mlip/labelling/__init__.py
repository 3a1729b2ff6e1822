"""Labels from any calculator: many frames, several processes, nothing lost on a kill."""

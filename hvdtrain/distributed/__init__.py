"""Who am I, who are the others, how do we talk."""

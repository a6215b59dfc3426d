"""Which images, in which order, cut how, and on to the device."""

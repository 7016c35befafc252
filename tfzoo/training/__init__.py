"""Training on one device, many devices and many machines, and going on after a kill as if nothing had happened."""

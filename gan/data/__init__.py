"""Sources, image preparation and the packed image set."""

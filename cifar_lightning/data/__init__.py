"""From files, or made on the spot, to batches on the device."""

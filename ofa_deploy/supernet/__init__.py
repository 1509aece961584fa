"""The elastic network: layers, the network and its subnetworks, weight files, training."""

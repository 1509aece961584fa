"""How accurate subnetworks are: data, measuring, predicting."""

"""How accurate subnetworks are: measuring, predicting."""

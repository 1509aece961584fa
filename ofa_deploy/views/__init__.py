"""What there is and what it is worth: lists, the doctor, scores of architectures."""

"""What runs in the pods: the four kinds' stages and the little they share."""

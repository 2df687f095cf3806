"""What is VGG's own: the configurations of Table 1, their notation, their layer names, their networks."""

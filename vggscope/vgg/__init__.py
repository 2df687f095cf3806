"""The parts specific to VGG: the configurations of Table 1, their notation, their layer names, their networks."""

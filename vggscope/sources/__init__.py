"""From a word that names a model to a Network: `resolve` knows every kind of source, no source knows another."""

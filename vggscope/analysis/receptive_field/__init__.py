"""Receptive fields: which input pixels each unit depends on (Araujo, Norris and Sim, Distill 2019)."""

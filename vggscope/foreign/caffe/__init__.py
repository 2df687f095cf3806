"""Nets of Caffe."""

"""Measurements of a model beside its training: noise scale, sharpness, curvature, serving."""

"""What can be measured of a model beside its training: noise scale, sharpness, curvature."""

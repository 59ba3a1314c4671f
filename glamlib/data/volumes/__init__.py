"""Volumes: NIfTI data sets and generated ones. Axes are (depth, height, width) = (inferior to superior, posterior to
anterior, left to right) and spacings are in mm in that order."""

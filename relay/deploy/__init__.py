"""The files that `relay deploy NAME` prints, and the catalogue of their names. See README.md beside it."""

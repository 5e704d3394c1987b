"""Records on disk: 4D-STEM scans, tilt series and runs. The only room that may import h5py."""

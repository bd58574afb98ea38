"""What a user sees of a run: figures, the video through z, and the folder that holds everything."""

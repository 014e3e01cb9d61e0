"""What ComfyUI needs of RealPortrait: an ordinary MODEL, folders, progress, pictures."""

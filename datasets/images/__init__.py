"""From image files to pixels: decoding, a cache of resized images, reading ahead, and finding bad files early."""

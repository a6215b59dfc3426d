"""What a trained network makes of images: of all validation images, counted by class, and of single ones."""

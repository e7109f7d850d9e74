"""The study of minima: sharpness, spectra, lines and planes between them."""

"""The bundled sample: files of brands, pulls of TMDB, and what makes transactions up."""

"""What stock model.fit does with batches, iterations and epochs, counted."""
